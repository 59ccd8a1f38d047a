"use strict";
const tip = document.getElementById("tip");
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function open(row, opened) {
  row.nextElementSibling.hidden = !opened;
  const button = row.querySelector(".open");
  button.setAttribute("aria-expanded", opened);
  button.textContent = opened ? "−" : "+";
}

function show(number) {  // open the row of a run, also where a filter hides it
  const row = document.getElementById("r" + number);
  const filter = row.closest("section").querySelector("input");
  if (row.hidden) { filter.value = ""; filter.dispatchEvent(new Event("input")); }
  all("tr.marked").forEach(other => other.classList.remove("marked"));
  row.classList.add("marked");
  open(row, true);
  row.scrollIntoView({ block: "center" });
  row.querySelector(".open").focus({ preventScroll: true });
}

function light(number, on) {
  all(`[data-run="${number}"]`).forEach(mark => mark.classList.toggle("lit", on));
}

for (const mark of all("[data-run]")) {
  const enter = event => {
    const box = mark.getBoundingClientRect();
    const [x, y] = event.clientX === undefined ? [box.left, box.top] : [event.clientX, event.clientY];
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (y + tip.offsetHeight + 24 > innerHeight ? y - tip.offsetHeight - 12 : y + 14) + "px";
    light(mark.dataset.run, true);
  };
  const leave = () => { tip.hidden = true; light(mark.dataset.run, false); };
  mark.addEventListener("mousemove", enter);
  mark.addEventListener("focus", enter);
  mark.addEventListener("mouseleave", leave);
  mark.addEventListener("blur", leave);
  mark.addEventListener("click", () => show(mark.dataset.run));
  mark.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); leave(); show(mark.dataset.run); }
  });
}
for (const link of all("a.jump")) {
  link.addEventListener("click", event => { event.preventDefault(); show(link.getAttribute("href").slice(2)); });
}
for (const table of all("table.runs")) {
  const body = table.tBodies[0], rows = all("tr.run", body), tools = table.closest("section").querySelector(".tools");
  const [input, output] = [tools.querySelector("input"), tools.querySelector("output")];
  rows.forEach(row => row.querySelector(".open").addEventListener("click", () => open(row, row.nextElementSibling.hidden)));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      if (row.hidden) open(row, false);
      shown += !row.hidden;
    }
    output.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
  all("thead th", table).forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    all("th", table).forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const order = rows.map(row => [key(row), row, row.nextElementSibling]);
    order.sort(([a], [b]) => {
      const [x, y] = [parseFloat(a), parseFloat(b)];
      if (isNaN(x) || isNaN(y)) return isNaN(x) && isNaN(y) ? a.localeCompare(b) * (down ? -1 : 1) : isNaN(x) - isNaN(y);
      return (x - y) * (down ? -1 : 1);
    });
    body.append(...order.flatMap(([, row, more]) => [row, more]));
  }));
}

"""The check of the answer's form, which comes first: whatever fails it fails others too."""

from __future__ import annotations

from bpgen.conformance.rules.case import Case, ask, prop


@prop(
    "one gradient per parameter, of its shape and dtype",
    "the optimizer takes `grads` by name; a missing, misshapen or attached one breaks training, or does so silently.",
)
def _form(case: Case) -> None:
    for options in ({"trainable_initial_state": True}, {"bias": "none"}):
        p = case.problem(**options)
        result = ask(case.bound(p), p)  # names, shapes and dtypes are looked at where a rule returns
        for name, g in result.grads.items():
            assert bool(g.isfinite().all()), f"the gradient of {name} is not finite."
            assert not g.requires_grad, f"the gradient of {name} hangs on an autograd graph: detach it."
        assert result.loss.ndim == 0, f"the loss must be 0-d, got {list(result.loss.shape)}."

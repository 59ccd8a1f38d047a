"""A W&B server on the loopback: it takes what a run sends, answers as wandb 0.31 expects, and remembers all of it.

with Stub() as stub:
    ...  # a run with WANDB_BASE_URL=stub.url and WANDB_API_KEY=KEY
stub.history, stub.summary, stub.config, stub.files
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4


class Stub:
    """A server that holds one run.

    Attributes:
        connections: how often anything connected.
        requests: path and body of everything received, in order.
        keys: the API keys it was sent.
        run: last value of every field of the run that was ever set: name, project, entity, groupName, tags, ...
        history, summary, exit_code: what was streamed.
        files: what was uploaded, by name.
        artifacts: what was committed: by collection name its type and the bytes of every file, by place.
        views: workspaces and reports that were saved.
        fault: set it to let the server fail from now on: an HTTP status, "hang" for no answer at all, or "drop" to take
            what it is sent and hang up in the middle of an answer.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[tuple[str, bytes]] = []
        self.keys: set[str] = set()
        self.run: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.files: dict[str, bytes] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self._begun: list[dict[str, Any]] = []
        self.fault: int | str | None = None
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Stub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Refuse every connection from now on."""
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()

    @property
    def config(self) -> dict[str, Any]:
        """The run's config by option, W&B's own part under `_wandb`."""
        return {key: entry["value"] for key, entry in json.loads(self.run["config"]).items()}

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """Remember a request and answer it."""
        self.requests.append((path, body))
        if path.startswith("/upload/"):
            self.files[path.removeprefix("/upload/")] = body
        elif path.endswith("/file_stream"):
            self._stream(json.loads(body))
        elif path == "/graphql":
            return {"data": self._graphql(json.loads(body))}
        return {}

    def _stream(self, sent: dict[str, Any]) -> None:
        files = sent.get("files") or {}
        if "wandb-history.jsonl" in files:
            part = files["wandb-history.jsonl"]
            self.history[part["offset"] :] = [json.loads(line) for line in part["content"]]
        for line in files.get("wandb-summary.json", {}).get("content", ()):
            self.summary = json.loads(line)
        self.exit_code = sent.get("exitcode", self.exit_code)

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        query, sent = request["query"], request.get("variables") or {}
        if "UpsertBucket" in query:
            new = not self.run
            self.run.update({key: value for key, value in sent.items() if value is not None})
            return {"upsertBucket": {"bucket": self._bucket(), "inserted": new}}
        if "RunResumeStatus" in query:
            known = bool(self.run) and self.run["name"] == sent["name"]
            return {"model": {**self._project(), "bucket": self._bucket() if known else None}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in sent["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            self.views.append(sent)
            project = {"id": "project", "name": sent["projectName"], "entityName": sent["entityName"]}
            return {
                "upsertView": {"view": {**sent, "id": f"view{len(self.views)}", "project": project}, "inserted": True}
            }
        if "internalId" in query:
            return {"project": {"internalId": "7"}}
        if "query GetProjects" in query:
            return {"models": {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": []}}
        if "rtifact" in query or "clientIDMapping" in query:
            return self._artifact(query, sent)
        return {"serverInfo": {"features": []}, "viewer": {"id": "user", "entity": "someone", "teams": {"edges": []}}}

    def _artifact(self, query: str, sent: dict[str, Any]) -> dict[str, Any]:
        """An artifact's life: created, given a manifest, filled, and committed once all of it is there."""
        given = sent.get("input") or {}
        if "mutation CreateArtifactManifest" in query:
            file = {"id": "file", **self._upload(sent["artifactID"], sent["name"])}
            return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}
        if "mutation CreateArtifactFiles" in query:
            nodes = [
                {**self._upload(f["artifactID"], f["name"]), "artifact": {"id": f["artifactID"]}}
                for f in given["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "mutation CreateArtifact" in query:
            self._begun.append(given)
            artifact = {"id": str(len(self._begun) - 1), "state": "PENDING"}
            return {
                "createArtifact": {"artifact": {**artifact, "artifactSequence": {"id": "s", "latestArtifact": None}}}
            }
        if "mutation CommitArtifact" in query:
            begun, place = self._begun[int(sent["artifactID"])], f"artifact/{sent['artifactID']}/"
            parts = {k.removeprefix(place): v for k, v in self.files.items() if k.startswith(place)}
            name = begun["artifactCollectionName"]
            self.artifacts[name] = {"type": begun["artifactTypeName"], "files": parts}
            return {"commitArtifact": {"artifact": {"id": sent["artifactID"], "digest": begun["digest"]}}}
        return {"project": None, "clientIDMapping": {"serverID": "0"}}

    def _upload(self, artifact: str, name: str) -> dict[str, Any]:
        url = f"{self.url}/upload/artifact/{artifact}/{name}"
        names = {"name": name, "displayName": name, "storagePath": f"wandb_artifacts/{name}"}
        return {"id": name, **names, "uploadUrl": url, "uploadHeaders": [], "uploadMultipartUrls": None}

    def _project(self) -> dict[str, Any]:
        entity = {"id": "entity", "name": self.run.get("entity") or "someone"}
        return {"id": "project", "name": self.run.get("project"), "entity": entity}

    def _bucket(self) -> dict[str, Any]:
        tail = [json.dumps(row) for row in self.history[-1:]]
        counts = {"historyLineCount": len(self.history), "eventsLineCount": 0, "logLineCount": 0}
        texts = {"historyTail": json.dumps(tail), "eventsTail": "[]", "summaryMetrics": json.dumps(self.summary)}
        return {"id": "run", **self.run, **counts, **texts, "project": self._project(), "wandbConfig": '{"t": 1}'}


class _Server(ThreadingHTTPServer):
    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.RequestHandlerClass.stub.connections += 1  # type: ignore[attr-defined]
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error; anything else goes to stderr, where a failing test shows it."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    stub: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        scheme, _, secret = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            self.stub.keys.add(base64.b64decode(secret).decode().removeprefix("api:"))
        fault = self.stub.fault
        if fault == "hang":
            self.stub.closing.wait()
        taken = fault in (None, "drop")
        answer = json.dumps(self.stub.answer(self.path, body)).encode() if taken else b""
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer[: len(answer) // 2] if fault == "drop" else answer)
        self.close_connection = self.close_connection or fault == "drop"

    do_GET = do_PUT = do_POST

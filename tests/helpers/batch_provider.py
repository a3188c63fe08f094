"""A stand-in for OpenAI's Batch API on loopback, written from its public description.

    with BatchProvider(fates=[Fate(expired=lambda n: n % 2 == 0)]) as provider: ...

Sources: `/files` and `/batches` in openai/openai-openapi (openapi.yaml), and the guide to the Batch API: limits,
states, the lines of the input, output, and error files, `batch_expired`, `token_limit_exceeded`, and that the order of
answers is arbitrary. Each question for a batch's state moves it on by one state, unless the test holds it.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.helpers.fake_provider import FakeProvider, _Handler
from tests.helpers.fake_provider_answers import Kind, spoiled_answer, texts_in, tokens_of

_MOST = 50_000
_MOST_BYTES = 200_000_000
_PATH = ["validating", "in_progress", "finalizing"]


@dataclass
class Fate:
    """The fate of a batch, in the order of creation; `expired`, `failing`, and `spoiled` are asked for each line."""

    ends: str = "completed"
    expired: Callable[[int], bool] = lambda number: False
    failing: Callable[[int], dict[str, Any] | None] = lambda number: None  # a response in the error file
    spoiled: Callable[[int], Kind | None] = lambda number: None
    missing: Callable[[int], bool] = lambda number: False  # in neither file
    problems: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Stored:
    """A batch and its fate."""

    answer: dict[str, Any]
    fate: Fate
    lines: list[dict[str, Any]]


@dataclass
class BatchProvider(FakeProvider):
    """The server; a context manager. Single requests are answered, too."""

    fates: list[Fate] = field(default_factory=list)
    held: bool = False
    window: str = "24h"
    queue_tokens: int | None = None
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    batches: dict[str, Stored] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    # Calls whose answer is lost after they took effect, or that are refused with a status before.
    losing: list[str] = field(default_factory=list)
    refusing: list[tuple[str, int]] = field(default_factory=list)
    paid: Counter[str] = field(default_factory=Counter)  # how often each text was answered in a batch
    billed: int = 0
    page: int = 2
    served: Callable[[str], str] = lambda content: content  # what a download brings

    def answer(self, handler: _Handler, method: str, raw: bytes) -> tuple[int, dict[str, str], Any] | None:
        path = urlsplit(handler.path).path
        parts = path.removeprefix("/v1/").split("/")
        if parts[0] not in ("files", "batches"):
            return super().answer(handler, method, raw)
        with self._lock:
            name = _name(method, parts)
            self.calls[name] += 1
            if self.key is not None and f"Bearer {self.key}" != handler.headers.get("Authorization"):
                return 401, {}, _error(f"Incorrect API key provided: {handler.headers.get('Authorization')}")
            if self.refusing and self.refusing[0][0] == name:
                return self.refusing.pop(0)[1], {}, _error("try again", "server_error")
            result = self._batch_call(handler, method, parts, raw)
            if name in self.losing:
                self.losing.remove(name)
                return None
            return result

    def _batch_call(
        self, handler: _Handler, method: str, parts: list[str], raw: bytes
    ) -> tuple[int, dict[str, str], Any]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}
        match method, parts:
            case "POST", ["files"]:
                return self._upload(handler.headers.get("Content-Type", ""), raw)
            case "GET", ["files"]:
                listed = [{"id": key, "object": "file", "filename": name, "purpose": "batch"}
                          for key, (name, _) in self.files.items()]  # fmt: skip
                return 200, {}, {"object": "list", "data": listed, "has_more": False}
            case "GET", ["files", key, "content"] if key in self.files:
                return 200, {"Content-Type": "application/octet-stream"}, self.served(self.files[key][1].decode())
            case "DELETE", ["files", key] if key in self.files:
                del self.files[key]
                return 200, {}, {"id": key, "object": "file", "deleted": True}
            case "POST", ["batches"]:
                return self._create(json.loads(raw))
            case "GET", ["batches"]:
                return self._list(query)
            case "GET", ["batches", key] if key in self.batches:
                self._advance(self.batches[key])
                return 200, {}, self.batches[key].answer
            case "POST", ["batches", key, "cancel"] if key in self.batches:
                stored = self.batches[key]
                if stored.answer["status"] in (*_PATH,):
                    stored.fate = Fate("cancelled", expired=lambda number: True)
                    self._end(stored)
                return 200, {}, stored.answer
        return 404, {}, _error(f"No such object: {'/'.join(parts)}", "not_found")

    def _upload(self, kind: str, raw: bytes) -> tuple[int, dict[str, str], Any]:
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            f"Content-Type: {kind}\r\n\r\n".encode() + raw
        )
        fields = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        if fields["purpose"].get_content().strip() != "batch" or len(raw) > _MOST_BYTES + 1000:
            return 400, {}, _error("wrong purpose or size")
        file_id = f"file-{len(self.files)}-{sum(self.calls.values())}"
        content = fields["file"].get_payload(decode=True)
        self.files[file_id] = (str(fields["file"].get_filename()), content)
        return 200, {}, {"id": file_id, "object": "file", "bytes": len(content), "purpose": "batch"}

    def _create(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        metadata = body.get("metadata", {})
        if len(metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in metadata.items()):
            return 400, {}, _error("metadata is too large")
        if body["input_file_id"] not in self.files or body["completion_window"] != self.window:
            return 400, {}, _error("unknown file or completion window")
        lines = [json.loads(line) for line in self.files[body["input_file_id"]][1].decode().split("\n") if line]
        fate = self.fates.pop(0) if self.fates else Fate()
        if problem := self._problem(body["endpoint"], lines):
            fate = Fate("failed", problems=[problem])
        batch_id = f"batch_{len(self.batches) + 1}"
        answer = {
            "id": batch_id,
            "object": "batch",
            "endpoint": body["endpoint"],
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": self.window,
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(time.time()),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": metadata,
        }
        self.batches[batch_id] = Stored(answer, fate, lines)
        return 200, {}, answer

    def _problem(self, endpoint: str, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
        names = [line["custom_id"] for line in lines]
        if len(set(names)) < len(names) or any(not 0 < len(name) <= 64 for name in names):
            return {"code": "duplicate_custom_id", "message": "custom_id", "line": 1, "param": "custom_id"}
        if any((line["method"], line["url"]) != ("POST", endpoint) for line in lines) or endpoint != "/v1/embeddings":
            return {"code": "invalid_url", "message": "url", "line": 1, "param": "url"}
        if not 0 < len(lines) <= _MOST or sum(len(texts_in(line["body"])) for line in lines) > _MOST:
            return {"code": "too_many_requests", "message": "size", "line": None, "param": None}
        under_way = [*(s.lines for s in self.batches.values() if s.answer["status"] in _PATH), lines]
        tokens = sum(tokens_of(text) for listed in under_way for line in listed for text in texts_in(line["body"]))
        if self.queue_tokens is not None and tokens > self.queue_tokens:
            message = f"Enqueued token limit reached. Limit: {self.queue_tokens} enqueued tokens."
            return {"code": "token_limit_exceeded", "message": message, "line": None, "param": None}
        return None

    def _list(self, query: dict[str, str]) -> tuple[int, dict[str, str], Any]:
        newest = [stored.answer for stored in reversed(self.batches.values())]
        if "after" in query:
            place = [answer["id"] for answer in newest].index(query["after"]) + 1
            newest = newest[place:]
        size = min(self.page, int(query.get("limit", 20)))
        return 200, {}, {"object": "list", "data": newest[:size], "has_more": len(newest) > size}

    def _advance(self, stored: Stored) -> None:
        status = stored.answer["status"]
        if status not in _PATH or (self.held and status == "in_progress"):
            return
        if status == "validating" and stored.fate.ends == "failed":
            stored.answer |= {"status": "failed", "errors": {"object": "list", "data": stored.fate.problems}}
        elif status == "finalizing" or (status == "in_progress" and stored.fate.ends == "expired"):
            self._end(stored)
        else:
            stored.answer["status"] = _PATH[_PATH.index(status) + 1]
            stored.answer["request_counts"]["total"] = len(stored.lines)

    def _end(self, stored: Stored) -> None:
        output, errors = [], []
        for number, line in enumerate(stored.lines):
            named = {"id": f"batch_req_{number}", "custom_id": line["custom_id"]}
            if stored.fate.missing(number):
                continue
            if stored.fate.expired(number):
                error = {"code": "batch_expired", "message": "This request could not be executed before the completion "
                         "window expired."}  # fmt: skip
                errors.append({**named, "response": None, "error": error})
            elif (failing := stored.fate.failing(number)) is not None:
                errors.append({**named, "response": failing, "error": None})
            else:
                status, _, body = self._embed("POST", "/v1/embeddings", line["body"])
                response = {"status_code": status, "request_id": f"req_{number}", "body": body}
                if status == 200:
                    self.paid.update(texts_in(line["body"]))
                    self.billed += body["usage"]["total_tokens"]
                    if (kind := stored.fate.spoiled(number)) is not None:
                        response["body"] = spoiled_answer(kind, body)
                (output if status == 200 else errors).append({**named, "response": response, "error": None})
        for kind, lines in (("output", output), ("error", errors)):
            if lines:
                key = f"file-{stored.answer['id']}-{kind}"
                content = "".join(json.dumps(line) + "\n" for line in reversed(lines))
                self.files[key] = (f"{key}.jsonl", content.encode())
                stored.answer[f"{kind}_file_id"] = key
        counts = {"total": len(stored.lines), "completed": len(output), "failed": len(errors)}
        stored.answer |= {"status": stored.fate.ends, "request_counts": counts}


def _name(method: str, parts: list[str]) -> str:
    return f"{method} {parts[0]}" + ("" if len(parts) == 1 else "/{id}" + "".join(f"/{part}" for part in parts[2:]))


def _error(message: str, code: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}

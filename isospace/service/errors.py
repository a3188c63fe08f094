"""Errors in the format of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Scope

from isospace.errors import (
    NO_ANSWER,
    IsospaceError,
    MismatchError,
    QueryError,
    ScopeError,
    ShardError,
    TextRefusedError,
)
from isospace.service.keys import Access

_TYPES = {401: "authentication_error", 404: "not_found_error", 409: "conflict_error", 429: "rate_limit_error"}

_LOG = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    """The details of an error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorDetail


class Problem(Exception):
    """An error response.

    Parameters
    ----------
    status
        HTTP status.
    message
        The value found, what was expected, and the fix.
    param
        The field of the request that is at fault.
    code
        A short identifier for programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def _type(problem: Problem) -> str:
    return _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")


def problem_response(problem: Problem) -> JSONResponse:
    """Build the response for a problem."""
    detail = ErrorDetail(
        message=printable(problem.message), type=_type(problem), param=problem.param, code=problem.code
    )
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(problem.status, {})
    return JSONResponse(ErrorBody(error=detail).model_dump(), status_code=problem.status, headers=headers)


def note_problem(scope: Scope, problem: Problem) -> None:
    """Note the kind of a problem for the access log; its message may quote what the client sent."""
    scope.get("state", {}).get("notes", {})["error"] = problem.code or _type(problem)


def printable(text: str) -> str:
    """Replace characters that UTF-8 cannot encode: messages quote what clients send."""
    return text.encode("utf-8", "replace").decode("utf-8")


def refused_scope(error: ScopeError) -> Problem:
    """Return the problem of a caller whose scope cannot be applied, and log its cause, which is not for the caller."""
    if error.__cause__ is not None:
        _LOG.warning("a search was refused, since its scope cannot be applied: %s", error.__cause__)
    return Problem(403, str(error), code="scope")


def missing_shard(error: ShardError, access: Access | None) -> Problem:
    """Return the problem of a search that lacks a shard; where the shard is, is for those who may see everything."""
    _LOG.warning("a request failed: %s", error)
    message = str(error)
    if access is not None and access.scope is not None:
        message = "a part of the collection cannot be searched now. Try again later."
    return Problem(503, message, code="shard_unavailable")


def handle_problems(app: FastAPI) -> None:
    """Register handlers that turn every error into this format."""

    @app.exception_handler(Problem)
    def _(request: Request, error: Problem) -> JSONResponse:
        note_problem(request.scope, error)
        return problem_response(error)

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        known = "see /openapi.json for the endpoints" if error.status_code in (404, 405) else ""
        problem = Problem(error.status_code, f"{where}: {error.detail}; {known}".rstrip("; ") + ".")
        note_problem(request.scope, problem)
        answer = problem_response(problem)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(IsospaceError)
    def _(request: Request, error: IsospaceError) -> JSONResponse:
        is_asked_wrong = isinstance(error, QueryError | MismatchError | TextRefusedError)
        status = 400 if is_asked_wrong else 503 if isinstance(error, NO_ANSWER) else 500
        problem = refused_scope(error) if isinstance(error, ScopeError) else Problem(status, str(error))
        if isinstance(error, ShardError):
            problem = missing_shard(error, getattr(request.state, "access", None))
        note_problem(request.scope, problem)
        return problem_response(problem)

"""Errors in the format of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from isospace.errors import IsospaceError, MismatchError, QueryError
from isospace.service.schemas import EmbeddingRequest, RerankRequest, SearchRequest

_TYPES = {401: "authentication_error", 404: "not_found_error", 409: "conflict_error", 429: "rate_limit_error"}
_FIELDS = {
    "/v1/embeddings": tuple(EmbeddingRequest.model_fields),
    "/search": tuple(SearchRequest.model_fields),
    "/v1/rerank": tuple(RerankRequest.model_fields),
}


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


def problem_response(problem: Problem) -> JSONResponse:
    """Build the response for a problem."""
    kind = _TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    detail = ErrorDetail(message=printable(problem.message), type=kind, param=problem.param, code=problem.code)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}.get(problem.status, {})
    return JSONResponse(ErrorBody(error=detail).model_dump(), status_code=problem.status, headers=headers)


def printable(text: str) -> str:
    """Replace characters that UTF-8 cannot encode: messages quote what clients send."""
    return text.encode("utf-8", "replace").decode("utf-8")


def handle_problems(app: FastAPI) -> None:
    """Register handlers that turn every error into this format."""

    @app.exception_handler(Problem)
    def _(_request: Request, error: Problem) -> JSONResponse:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    def _(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_response(_invalid(error, request.url.path))

    @app.exception_handler(HTTPException)
    def _(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        known = "see /openapi.json for the endpoints" if error.status_code in (404, 405) else ""
        answer = problem_response(Problem(error.status_code, f"{where}: {error.detail}; {known}".rstrip("; ") + "."))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(IsospaceError)
    def _(_request: Request, error: IsospaceError) -> JSONResponse:
        is_invalid = isinstance(error, QueryError | MismatchError)
        return problem_response(Problem(400 if is_invalid else 500, str(error)))


def _invalid(error: RequestValidationError, path: str) -> Problem:
    first: Any = error.errors()[0]
    # Further elements name the members of a union that were tried, which the client does not know.
    name = str(first["loc"][1]) if len(first["loc"]) > 1 else None
    if name is None and first["type"] == "model_attributes_type":
        return Problem(400, "the body is not a JSON object; send one, with the header Content-Type: application/json.")
    if first["type"] == "extra_forbidden":
        known = f" Known: {', '.join(_FIELDS.get(path, ()))}." if path in _FIELDS else ""
        return Problem(400, f"{name}: unknown field.{known}", param=name)
    # Every member of a union reports an error; for an empty list, only this one helps.
    if any(detail["type"] == "too_short" and detail["input"] == [] for detail in error.errors()):
        return Problem(400, f"{name}: is empty; expected at least one.", param=name)
    if first["type"] == "json_invalid":
        return Problem(400, f"the body is not valid JSON: {first.get('ctx', {}).get('error', 'it cannot be parsed')}.")
    return Problem(400, f"{name or 'the body'}: {first['msg']}.", param=name)

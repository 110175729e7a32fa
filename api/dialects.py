"""What a proxy makes of an answer: some understand every status of forward auth, nginx only three."""

from functools import wraps

import msgspec
from sanic import HTTPResponse, Request

from api.answers import Answer, as_sent
from api.errors import refusal
from api.gate import Handler
from models.errors import InvalidInput, ServiceError


def in_dialect(handler: Handler) -> Handler:
    """Let `?dialect=nginx` choose an answer that nginx's `auth_request` can pass on.

    It takes 2xx, 401 and 403, and makes 500 of all others. So these become 403, and the true status and code of every
    refusal stand in fields of their own, for the configuration to turn back (`docs/nginx.conf`).

    Raises:
        InvalidInput: there is no such dialect.
    """

    @wraps(handler)
    async def speak(request: Request) -> HTTPResponse:
        dialects = request.args.getlist("dialect", []) if request.query_string else None
        if not dialects:
            return await handler(request)
        if dialects != ["nginx"]:
            raise InvalidInput("The only dialect is nginx: /verify?dialect=nginx")
        try:
            answer = await handler(request)
        except ServiceError as error:
            answer = refusal(error)
        return _for_nginx(answer)

    return speak


def _for_nginx(answer: HTTPResponse) -> HTTPResponse:
    if answer.status == 200 or not isinstance(answer, Answer):
        return answer
    code = msgspec.json.decode(answer.body or b"{}").get("code", "")
    told = as_sent({"X-Gate-Status": str(answer.status), "X-Gate-Code": code})
    return Answer(answer.body or b"", 401 if answer.status == 401 else 403, answer.fields + told, code)

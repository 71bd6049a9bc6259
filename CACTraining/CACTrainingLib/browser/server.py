"""Serve the page: authenticate requests, send images and states, and carry out readers' actions.

No part of a request becomes the name of a file: scans are named by ids, pages and scripts by a fixed list.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from CACScoringLib.core.errors import ChangedError, CTError, JournalError, OutputError, RefusedError
from CACScoringLib.core.labels import NOT_CORONARY, SITE_COLOURS, Artery
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.journals import AGAIN, CONSENSUS, FIRST
from CACScoringLib.readings.recorded_review import begin_blind, hidden
from CACScoringLib.readings.work_list import WorkList

from .actions import ASSIGNABLE_SITES, checked
from .images import first_view, label_colours, slice_bytes
from .open_reviews import OpenReview, OpenReviews
from .page_state import BLIND_IMAGES, rows_of
from .project import export_to_project
from .safety import COOKIE, CSRF_HEADER, HEADERS, SESSION_SECONDS, Gate

MAX_REQUEST_BYTES = 64 * 1024
"""Largest body of a request; a stroke of the brush with 500 points has 30 kB."""

READER, CSRF = web.RequestKey("reader", str), web.RequestKey("csrf", str)
"""Reader of a request, and the token that changes in the reader's session must have."""

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the server.

    Attributes:
        host: Address to listen at.
        port: Port to listen at; 0 for any free port.
        origin: Address used by browsers; None for this computer alone.
        user_header: Header in which a proxy on this computer names the reader, instead of tokens.
    """

    host: str = "127.0.0.1"
    port: int = 0
    origin: str | None = None
    user_header: str | None = None


PROXIES = ("127.0.0.1", "::1")


class Server:
    """Server of the review's page.

    Args:
        work: Scans and their readings.
        gate: Authentication of readers.
        project: Training project for exported reviews, or None.
        dicom: True to export DICOM objects too.
    """

    def __init__(self, work: WorkList, gate: Gate, project: Path | None = None, dicom: bool = False) -> None:
        self.work = work
        self.gate = gate
        self.project = project
        self.dicom = dicom
        self.origins: tuple[str, ...] = ()
        """Origins of the server's pages, as sent by browsers."""
        self.user_header: str | None = None
        self.reviews = OpenReviews(self._begin, self._prepare)
        self._agreement_lock = threading.Lock()
        folder = Path(__file__).resolve().parents[1] / "Resources" / "Review"
        self._static = {file.name: file for file in folder.iterdir() if file.is_file()}

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_REQUEST_BYTES)
        scan = "/api/scans/{id:[0-9a-f]{16}}/{reading:own|consensus}"
        app.add_routes(
            [
                web.get("/", self._list_page),
                web.get("/login", self._login),
                web.get("/scan/{id:[0-9a-f]{16}}", self._scan_page),
                web.get("/static/{name}", self._file),
                web.post("/revoke", self._revoke),
                web.get("/api/work", self._work),
                web.get("/api/agreement", self._agreement),
                web.get(scan, self._state),
                web.get(scan + "/first", self._first),
                web.get(scan + "/slice/{image:[a-z]+}/{k:[0-9]{1,5}}", self._slice),
                web.get(scan + "/volume/{image:[a-z]+}", self._volume),
                web.get(scan + "/lesions/{method:[a-z]+}", self._lesions),
                web.post(scan + "/act", self._act),
                web.post(scan + "/time", self._time),
                web.post(scan + "/export", self._export),
                web.post(scan + "/project", self._project),
            ]
        )
        return app

    # Access

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            answer = await self._let_in(request, handler)
        except web.HTTPException as error:
            reason = "There is no such page." if error.reason == "Not Found" else error.reason
            answer = _refusal(request, error.status, reason)
        except (CTError, OutputError) as error:
            status = 400 if isinstance(error, RefusedError) else 409 if isinstance(error, ChangedError) else 422
            answer = _refusal(request, status, self._without_name(request, str(error)))
        except Exception:
            log.exception("A request failed")
            answer = _refusal(request, 500, "The server failed. What it was is in its terminal.")
        answer.headers.update(HEADERS)
        return answer

    async def _let_in(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Other names may lead here by DNS rebinding.
        if request.headers.getall("Host", []) not in [[urlsplit(origin).netloc] for origin in self.origins]:
            raise web.HTTPForbidden(reason="This server goes by another name.")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not _navigates(request):
            raise web.HTTPForbidden(reason="Another page may not ask this server.")
        if request.path.startswith("/static/") or (request.path == "/login" and not self.user_header):
            return await handler(request)
        session = self._session(request)
        if session is None:
            raise web.HTTPUnauthorized(reason="You are not logged in. Open the address that cac review printed.")
        request[READER], request[CSRF] = session
        if request.method == "POST":
            self._check_change(request)
        return await handler(request)

    def _session(self, request: web.Request) -> tuple[str, str] | None:
        if (name := self.user_header) is None:
            return self.gate.session(request.cookies.get(COOKIE, ""))
        if request.remote not in PROXIES:
            return None
        users = request.headers.getall(name, [])
        return self.gate.session_by_header(users[0]) if len(users) == 1 and users[0] in self.gate.readers else None

    def _check_change(self, request: web.Request) -> None:
        """Raise HTTPForbidden for a change that does not come from one of our pages in this session."""
        if request.headers.getall("Origin", []) not in [[origin] for origin in self.origins]:
            raise web.HTTPForbidden(reason="The change comes from another page.")
        token = request.headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
        if not hmac.compare_digest(request[CSRF].encode(), token):
            raise web.HTTPForbidden(reason="The page is of another session. Load it again.")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="A change is JSON.")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        reader, token = request.query.get("reader", ""), request.query.get("token", "")
        if not self.gate.opens(reader, token):
            await asyncio.sleep(1)  # slows down guessing
            raise web.HTTPUnauthorized(reason="The token is not valid. Open the address that cac review printed.")
        answer = web.Response(status=303, headers={"Location": "/"})
        secure = all(origin.startswith("https:") for origin in self.origins)
        cookie = self.gate.cookie(reader)
        answer.set_cookie(COOKIE, cookie, max_age=SESSION_SECONDS, httponly=True, secure=secure, samesite="Lax")
        return answer

    def address(self, reader: str, origin: str) -> str:
        """Return a reader's login address."""
        return f"{origin}/login?{urlencode({'reader': reader, 'token': self.gate.token(reader)})}"

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        """End the reader's address and sessions; the terminal of the server gets a new address."""
        await _empty(request)
        reader = request[READER]
        if self.user_header:
            raise RefusedError("A proxy names the readers; end the session there.")
        self.gate.revoke(reader)
        print(f"{reader}: {self.address(reader, self.origins[0])}", flush=True)
        return _json({})

    # Pages

    async def _list_page(self, request: web.Request) -> web.StreamResponse:
        return self._page(request, "list.html")

    async def _scan_page(self, request: web.Request) -> web.StreamResponse:
        self._place(request)
        return self._page(request, "scan.html")

    def _page(self, request: web.Request, name: str) -> web.StreamResponse:
        text = self._static[name].read_text(encoding="utf-8")
        text = text.replace("CSRF_TOKEN", request[CSRF])
        return web.Response(text=text, content_type="text/html")

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = self._static.get(request.match_info["name"])
        if file is None or file.suffix not in (".js", ".css", ".svg"):
            raise web.HTTPNotFound(reason="There is no such file.")
        kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        return web.Response(body=file.read_bytes(), content_type=kinds[file.suffix])

    # Reading

    async def _work(self, request: web.Request) -> web.StreamResponse:
        reader = request[READER]
        work = self.work
        rows = await asyncio.to_thread(rows_of, work, reader)
        agreement = work.double and work.is_closed
        return _json({"reader": reader, "double": work.double, "agreement": agreement, "rows": rows})

    async def _agreement(self, request: web.Request) -> web.StreamResponse:
        if not self.work.double:
            raise web.HTTPNotFound(reason="There is one reading of each scan.")
        if not self.work.is_closed:
            raise RefusedError("The agreement is shown when all readings are reviewed.")

        def pairs() -> list[dict[str, Any]]:
            # Imported on use, because it loads slowly and single readings do not need it.
            from CACScoringLib.readings.agreement import agreement_of_pairs

            with self._agreement_lock:
                return [pair.as_json() for pair in agreement_of_pairs(self.work)]

        return _json({"pairs": await asyncio.to_thread(pairs)})

    async def _first(self, request: web.Request) -> web.StreamResponse:
        case, blind = self._place(request)[0], self._is_blind(request)
        return _json(await asyncio.to_thread(lambda: first_view(self.reviews.scan(case), case.folder, blind)))

    async def _state(self, request: web.Request) -> web.StreamResponse:
        reader, blind = request[READER], self._is_blind(request)
        state = await self._with_review(request, lambda review: review.page_state(blind) | review.images.about())
        if blind:
            state["images"] = [name for name in state["images"] if name in BLIND_IMAGES]
        sites = [
            {"label": int(site), "name": site.short_name, "full_name": site.full_name, "colour": colour}
            for site, colour in SITE_COLOURS.items()
        ]
        about = {
            "name": self._name(request),
            "reader": reader,
            "sites": sites,
            "given_sites": [int(site) for site in ASSIGNABLE_SITES],
            "rejected": NOT_CORONARY,
            "unassigned": int(Artery.UNASSIGNED),
            "label_colours": label_colours(),
            "project": self.project is not None,
            "order": [page_path(self.work.address(reader, *place), place[1]) for place in self.work.order(reader)],
        }
        return _json(about | state)

    async def _slice(self, request: web.Request) -> web.StreamResponse:
        name, k, case = request.match_info["image"], int(request.match_info["k"]), self._place(request)[0]
        if name == "ct":
            return _bytes(await asyncio.to_thread(lambda: slice_bytes(self.reviews.scan(case).image, k)))
        self._check_shown(request, name)
        return _bytes(await self._with_review(request, lambda review: review.images.slice_bytes(name, k)))

    async def _volume(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["image"]
        self._check_shown(request, name)
        return _bytes(await self._with_review(request, lambda review: review.images.volume(name)))

    async def _lesions(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self._check_shown(request, method)
        return _bytes(await self._with_review(request, lambda review: review.images.lesions(review.review, method)))

    def open_first(self) -> None:
        """Open the first scan of the first reader's list in advance."""
        reader = self.work.readers[0]
        rows = zip(rows_of(self.work, reader), self.work.order(reader), strict=False)  # refused scans come last
        needs = [(row["need"], place) for row, place in rows if row["state"] != "reviewed"]
        if needs:
            case_id, kind = max(needs, key=lambda need: need[0])[1]
            with suppress(CTError):  # reported when the scan is requested
                self.reviews.get(self.work.cases[case_id], self.work.reading_of(reader, kind))

    # Changes

    async def _act(self, request: web.Request) -> web.StreamResponse:
        content, reader = await _content(request), request[READER]
        case, kind = self._place(request)
        if reason := self.work.refusal(case, reader, kind, to_change=True):
            raise RefusedError(reason)

        def act(review: OpenReview) -> dict[str, Any]:
            action = review.request_of(content)
            self._check_shown(request, action.method)
            review.act(reader, action)
            return review.page_state(self._is_blind(request))

        return _json(await self._with_review(request, act))

    async def _time(self, request: web.Request) -> web.StreamResponse:
        content, reader = await _content(request), request[READER]
        if not isinstance(content, dict) or content.keys() - {"looked_at"} != {"seconds"}:
            raise RefusedError("The request has no seconds, or other parts.")
        seconds, looked_at = checked("seconds", content["seconds"]), checked("looked_at", content.get("looked_at", {}))
        await self._with_review(request, lambda review: review.spend(reader, seconds, looked_at))
        return _json({})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        await _empty(request)
        reader = request[READER]
        folder = await self._with_review(request, lambda review: review.export(reader, self.dicom), is_locked=False)
        return _json({"folder": folder.name})

    async def _project(self, request: web.Request) -> web.StreamResponse:
        await _empty(request)
        project = self.project
        if project is None:
            raise web.HTTPNotFound(reason="No project was named. Start cac review with --project.")
        kind = self._place(request)[1]
        if kind == AGAIN or self._is_blind(request):
            raise RefusedError("A repetition is no annotation, nor a blind reading. Add a first one or the consensus.")
        annotator = kind if kind == CONSENSUS else request[READER]
        scan = await self._with_review(request, lambda review: export_to_project(project, review, annotator))
        return _json({"scan": scan})

    async def _with_review(self, request: web.Request, use: Callable[[OpenReview], Any], is_locked: bool = True) -> Any:
        """Call a function with the requested review in a thread, holding its lock if `is_locked`; return its result."""

        def run() -> Any:
            review = self._review(request)
            with review.lock if is_locked else nullcontext():
                try:
                    return use(review)
                except JournalError:
                    # The review in memory has an unsaved change.
                    self.reviews.close(review.case, review.reading)
                    raise

        return await asyncio.to_thread(run)

    def _is_blind(self, request: web.Request) -> bool:
        case, kind = self._place(request)
        return self.work.hides(case, request[READER], kind)

    def _name(self, request: web.Request) -> str:
        """Return the name of the requested reading for its reader."""
        case, kind = self._place(request)
        return self.work.name_of(case, request[READER], kind)

    def _without_name(self, request: web.Request, text: str) -> str:
        """Return a message as a reader may see it."""
        if self.work.place_at(request.get(READER, ""), request.match_info.get("id", "")) and self._is_blind(request):
            return hidden(self._place(request)[0], self._name(request), text)
        return text

    def _check_shown(self, request: web.Request, name: str) -> None:
        """Raise HTTPNotFound for an image or a method that a blind reader must not see."""
        if name not in (*BLIND_IMAGES, "threshold") and self._is_blind(request):
            raise web.HTTPNotFound(reason="There is no such image.")

    def _begin(self, case: ReviewCase, reading: str) -> None:
        if self.work.blind and reading != CONSENSUS:
            begin_blind(case, reading)

    def _prepare(self, review: OpenReview) -> None:
        if self.work.blind and review.reading != CONSENSUS:
            review.review.make_blind(review.reading)
        if review.reading == CONSENSUS:
            review.begin_consensus([self.work.reading_of(reader, FIRST) for reader in self.work.readers])

    def _place(self, request: web.Request) -> tuple[ReviewCase, str]:
        """Return the scan and the kind of the requested reading."""
        place = self.work.place_at(request[READER], request.match_info["id"])
        if place is None:
            raise web.HTTPNotFound(reason="There is no such scan.")
        if (reading := request.match_info.get("reading")) == CONSENSUS or place[1] == CONSENSUS:
            return place[0], CONSENSUS if reading == CONSENSUS else FIRST
        return place

    def _review(self, request: web.Request) -> OpenReview:
        (case, kind), reader = self._place(request), request[READER]
        if reason := self.work.refusal(case, reader, kind):
            raise RefusedError(reason)
        return self.reviews.get(case, self.work.reading_of(reader, kind))


def page_path(address: str, kind: str) -> str:
    """Return the path of a reading's page below /scan/."""
    return f"{address}?reading={kind}" if kind == CONSENSUS else address


def _navigates(request: web.Request) -> bool:
    """True if a request opens a page by a link or an address; the linking page cannot read the response."""
    return request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"


async def _content(request: web.Request) -> object:
    try:
        return json.loads(await request.text(), parse_constant=_no_constant)
    except (ValueError, RecursionError, LookupError) as error:
        raise RefusedError("The request is no JSON.") from error


async def _empty(request: web.Request) -> None:
    if await _content(request) != {}:
        raise RefusedError("The request has unknown parts.")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


def _json(content: object) -> web.Response:
    return web.json_response(content, dumps=lambda value: json.dumps(value, allow_nan=False))


def _refusal(request: web.Request, status: int, reason: str) -> web.Response:
    """Return a page if a browser navigates, else JSON."""
    if "text/html" in request.headers.get("Accept", ""):
        return web.Response(text=_REFUSAL.format(escape(reason)), content_type="text/html", status=status)
    return web.json_response({"error": reason}, status=status)


_REFUSAL = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>CAC review</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    '<link rel="icon" href="data:,"><link rel="stylesheet" href="/static/review.css"></head>'
    '<body class="list"><header><h1>CAC review</h1></header>'
    '<main><p>{}</p><p><a href="/">Work list</a></p></main></body></html>'
)


def _bytes(content: bytes | None) -> web.Response:
    if content is None:
        raise web.HTTPNotFound(reason="There is no such image.")
    return web.Response(body=content, content_type="application/octet-stream")

"""Test that bad requests are refused: none changes a review, ends in a traceback, or reads a file."""

import json
import shutil
from urllib.parse import quote

import pytest
from review_server import Client, ReviewServer, free_port, write_cohort

from CACScoringLib.core.errors import RefusedError
from CACTrainingLib.browser.actions import request_of
from CACTrainingLib.browser.safety import Gate

SHAPE = (20, 64, 64)
HEAD = {"action": "reject", "method": "threshold", "version": 0, "seconds": 1}
RIGHT = {
    "reject": {"lesions": [1]},
    "assign": {"lesions": [1, 2], "site": 2},
    "pick": {"voxel": [5, 30, 30], "site": 2},
    "paint": {"points": [[5, 30, 30]], "radius_mm": 2, "flat": True, "label": 0},
    "cut": {"lesion": 1, "point": [5, 30, 30.5], "normal": [0, 0, 1], "label": 4},
    "reviewed": {"on": True},
    "accept": {},
}
NO_NUMBERS = ["1", True, None, [1], {}, float("nan"), 1e400, 10**400]
NO_PLACES = [[5, 30], [5, 30, 30, 1], [99, 30, 30], [-1, 30, 30], [5, 30, "x"], "x", 5, {"k": 1}]
WRONG = {
    "action": ["", "delete", "__class__", "REJECT", "give", 5, ["reject"], {}],
    "method": ["", "other", 5, ["threshold"], {}],
    "version": [-1, 0.5, 2**40, *NO_NUMBERS],
    "seconds": [-1, 1e9, *NO_NUMBERS],
    "lesions": [[], [0], [-1], [65536], [1.0], [True], [[1]], [10**30], [1] * 5001, 1, "1"],
    "site": [0, 6, 7, 12, 255, -1, 2.5, *NO_NUMBERS],
    "voxel": [[5, 30, 64], [1.5, 30, 30], [10**12, 0, 0], *NO_PLACES],
    "points": [[], [[5, 30, 30]] * 501, "5,30,30", *([place] for place in NO_PLACES)],
    "radius_mm": [0, -1, 51, 1e308, *NO_NUMBERS],
    "flat": [1, "true", None],
    "label": [6, 12, -1, 2.5, *NO_NUMBERS],
    "lesion": [0, 65536, *NO_NUMBERS],
    "point": NO_PLACES,
    "normal": [[0, 0, 0], [0, 1], [0, 0, "1"], [0, 0, 1e9]],
    "on": [1, "true", None],
}


@pytest.mark.parametrize("action", RIGHT)
def test_each_part_of_a_request_is_checked(action):
    right = {**HEAD, "action": action, **RIGHT[action]}
    assert request_of(right, SHAPE, ("threshold",)).parts.keys() == RIGHT[action].keys()
    wrong = [{**right, name: value} for name in right for value in WRONG[name]]
    wrong += [{n: value for n, value in right.items() if n != name} for name in right]
    wrong += [{**right, name: 1} for name in ("path", "file", "reader", "__proto__")]
    for content in (*wrong, None, [], 1, "text", {}):
        with pytest.raises(RefusedError):
            request_of(content, SHAPE, ("threshold",))


@pytest.mark.parametrize(
    "looked_at", [1, [1], {"threshold": 1}, {"threshold": [0]}, {"threshold": ["1"]}, {"threshold": [1] * 5001}]
)
def test_lesions_that_were_looked_at_are_checked(looked_at):
    content = {**HEAD, "action": "accept", "looked_at": {"threshold": [1]}}
    assert request_of(content, SHAPE, ("threshold",)).looked_at == {"threshold": [1]}
    with pytest.raises(RefusedError):
        request_of(content | {"looked_at": looked_at}, SHAPE, ("threshold",))


def test_tokens_end_with_the_server_and_can_be_revoked():
    gate, next_gate = Gate(("Ann", "Bob")), Gate(("Ann", "Bob"))
    token, cookie = gate.token("Ann"), gate.cookie("Ann")
    assert gate.opens("Ann", token)
    assert gate.session(cookie)[0] == "Ann"
    assert not next_gate.opens("Ann", token)
    assert next_gate.session(cookie) is None
    gate.revoke("Ann")
    assert not gate.opens("Ann", token)
    assert gate.session(cookie) is None
    assert gate.opens("Bob", gate.token("Bob"))


def test_a_reader_ends_a_session(start):
    client = start("--reader", "Ann").client("Ann")
    assert client.post("/revoke", {}) == (200, {})
    assert client.raw("GET", "/api/work", headers={"Cookie": client.cookie})[0] == 401


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    results = write_cohort(folder / "cohort", ["one"])
    server = ReviewServer.start(results, "--reader", "Ann", "--reader", "Bob", data=folder / "data")
    yield server, results
    server.process.kill()


class Requests:
    """Requests (method, path, body, headers), each wrong in one way."""

    def __init__(self, client):
        self.client, self.base = client, client.base("one")
        lesion = client.get(self.base)["methods"]["threshold"]["lesions"][0]
        self.body = json.dumps({**HEAD, "lesions": [lesion["id"]]}).encode()

    def act(self, name, value):
        """Return a change that is correct except for one header."""
        return "POST", f"{self.base}/act", self.body, {**self.client.headers, name: value}

    def get(self, path, **headers):
        return "GET", path, None, {"Cookie": self.client.cookie, **headers}

    def of_paths(self):
        base = self.base
        for up in ("../", "..%2f", "%2e%2e/", "..\\", "....//", "%252e%252e%252f", "/"):
            for start in ("/static/", "/scan/", "/api/scans/", f"{base}/slice/", f"{base}/volume/"):
                yield self.get(f"{start}{up * 3}etc/passwd")
                yield self.get(f"{start}{up}scores.json")
        for name in ("passwd", "lesions", "ct.nii.gz", quote("../heart"), "CT"):
            yield self.get(f"{base}/volume/{name}")
            yield self.get(f"{base}/lesions/{name}")
        for k in (20, 99999, -1, "x", "1e3", "", quote("٣")):
            yield self.get(f"{base}/slice/ct/{k}")
        for token in ("", "x" * 32, self.client.csrf[:32], quote("é" * 32), "0" * 5000):
            yield "GET", f"/login?reader=Ann&token={token}", None, {}
        for method in ("PUT", "DELETE", "PATCH", "POST", "TRACE", "OPTIONS"):
            for path in ("/", "/api/work", "/static/scan.js", base, "/login"):
                yield method, path, b"{}", self.client.headers

    def of_headers(self):
        client, origin, port = self.client, self.client.server.origin, self.client.server.port
        hosts = ["evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "", None]
        origins = [None, "null", "https://evil.example", "file://", origin.replace("http:", "https:"), f"{origin}/"]
        origins += [f"{origin}.evil.example", origin.replace("127.0.0.1", "127.0.0.2")]
        origins.append([origin, "https://evil.example"])
        name, value = client.cookie.split("=", 1)
        texts = [value[:5] + ("A" if value[5] != "A" else "B") + value[6:], "", ".", value.split(".")[0], value + "A"]
        cookies = [f"{name}={text}" for text in (*texts, "null.null", "\xff.\xff")]
        headers = {
            "Host": [*hosts, [client.host, "evil.example"]],
            "Origin": origins,
            "Cookie": [None, f"other={value}", *cookies],
            "X-CSRF-Token": [None, "", client.csrf[:-1], client.csrf + "A", client.csrf.swapcase(), "\xe9"],
            "Content-Type": [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"],
            "Sec-Fetch-Site": ["cross-site", "same-site"],
        }
        yield from (self.act(name, value) for name, values in headers.items() for value in values)
        for name in ("Host", "Cookie", "Sec-Fetch-Site"):
            yield from (self.get("/api/work", **{name: value}) for value in headers[name])

    def of_bodies(self):
        body = self.body
        bodies = [b"", b"null", b"[]", b"\xff\xfe", b"[" * 5000, b"{}", body + body, body[:-5], b" " * 70_000]
        for content in (*bodies, b"[" * 300_000, body.replace(b"1", b"NaN", 1)):
            yield "POST", f"{self.base}/act", content, self.client.headers


@pytest.mark.long
def test_refused_requests_do_nothing(served):
    server, results = served
    client = server.client("Ann")
    base = client.base("one")
    before = client.get(base)
    requests = Requests(client)
    for method, path, body, headers in (*requests.of_paths(), *requests.of_headers(), *requests.of_bodies()):
        request = (method, path, headers, (body or b"")[:200])
        status, content, headers_received = client.raw(method, path, body, headers)
        assert 400 <= status < 500, (request, status, content[:300])
        assert b"Traceback" not in content, request
        assert b"root:" not in content, request
        assert "Set-Cookie" not in headers_received, request
    assert client.get(base) == before
    assert not list(results.glob("*/reviews/*"))
    # A correct request is accepted.
    client.act(base, "reject", lesions=[before["methods"]["threshold"]["lesions"][0]["id"]])
    assert "Traceback" not in server.stop()


@pytest.mark.long
def test_a_proxys_user_header_names_the_reader(served, tmp_path):
    settings = {"origin": "https://review.example.org", "user_header": "X-User", "port": free_port()}
    options = ("--reader", "Ann", "--settings", json.dumps(settings))
    results = shutil.copytree(served[1], tmp_path / "results")
    server = ReviewServer.start(results, *options, data=tmp_path / "data")
    try:
        client = Client.bare(server, "review.example.org")
        assert client.raw("GET", "/", headers={"X-User": "Ann"})[0] == 200
        assert (client.raw("GET", "/", headers={"X-User": "Eve"})[0], client.raw("GET", "/")[0]) == (401, 401)
        assert client.raw("GET", "/", headers={"X-User": ["Ann", "Eve"]})[0] == 401
        assert client.raw("GET", "/login?reader=Ann&token=x", headers={})[0] == 401
        assert client.raw("GET", "/", headers={"X-User": "Ann", "Host": "other.example.org"})[0] == 403
    finally:
        server.stop()

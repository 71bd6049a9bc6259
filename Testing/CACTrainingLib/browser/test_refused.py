"""300 requests that must be refused, generated: none is done, none ends in a traceback, none reads a file."""

import json
import random
from urllib.parse import quote

import pytest
from review_server import Client, ReviewServer, chest_size, free_port, write_cohort

pytestmark = pytest.mark.long

COUNT = 300


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    results = write_cohort(folder / "cohort", ["one"])
    server = ReviewServer.start(results, "--reader", "Ann", "--reader", "Bob", data=folder / "data")
    yield server, results
    server.process.kill()


class Requests:
    """Makes requests, each of which is wrong in one way: method, path, body, headers."""

    def __init__(self, client, seed):
        self.client = client
        self.rng = random.Random(seed)
        self.base = client.base("one")
        state = client.get(self.base)
        self.version = state["version"]
        self.ids = [lesion["id"] for lesion in state["methods"]["threshold"]["lesions"]]
        self.kinds = [
            *(self.path, self.host, self.origin, self.token, self.session, self.csrf, self.content_type, self.size),
            *(self.malformed, self.label, self.voxel, self.lesion, self.version_number, self.action, self.part),
            *(self.stroke, self.cut, self.image, self.method, self.fetched),
        ]

    def made(self, number):
        return self.kinds[number % len(self.kinds)]()

    def act(self, headers=None, **changed):
        """A change that would be done, but for what is changed. A part that is None is left out."""
        content = {"action": "reject", "method": "threshold", "version": self.version, "seconds": 1}
        content |= {"lesions": [self.ids[0]], **changed}
        content = {name: value for name, value in content.items() if value is not None}
        return "POST", f"{self.base}/act", json.dumps(content).encode(), {**self.client.headers, **(headers or {})}

    def other_act(self, **parts):
        return self.act(lesions=None, **parts)

    def get(self, path, **headers):
        return "GET", path, None, {"Cookie": self.client.cookie, **headers}

    def path(self):
        up = self.rng.choice(["../", "..%2f", "%2e%2e/", "..\\", "....//", "%252e%252e%252f", "/"])
        target = self.rng.choice(["etc/passwd", "cohort.json", "server.py", "review.key", "scores.json", "list.html"])
        start = self.rng.choice(["/static/", "/scan/", "/api/scans/", f"{self.base}/slice/", f"{self.base}/volume/"])
        return self.get(start + up * self.rng.randint(1, 6) + target)

    def image(self):
        kind = self.rng.choice(["slice", "volume", "lesions"])
        name = self.rng.choice(["passwd", "lesions", "reviews", "ct.nii.gz", quote("../heart"), "CT", "scores"])
        k = self.rng.choice([20, 99999, -1, "x", "1e3", "", "٣"])
        if kind == "slice":
            name, k = self.rng.choice([(name, 3), ("ct", k)])
        return self.get(f"{self.base}/{kind}/{quote(name)}" + (f"/{quote(str(k))}" if kind == "slice" else ""))

    def host(self):
        port = self.client.server.port
        hosts = ["evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", "", None]
        hosts.append([self.client.host, "evil.example"])
        method, path, body, headers = self.rng.choice([self.act(), self.get("/"), self.get(self.base)])
        return method, path, body, {**headers, "Host": self.rng.choice(hosts)}

    def origin(self):
        own = self.client.server.origin
        origins = [
            None,
            "null",
            "https://evil.example",
            own.replace("http:", "https:"),
            own + ".evil.example",
            own + "/",
        ]
        origins += [own.replace("127.0.0.1", "127.0.0.2"), [own, "https://evil.example"], "file://"]
        return self.act({"Origin": self.rng.choice(origins)})

    def fetched(self):
        site = self.rng.choice(["cross-site", "same-site"])
        mode = self.rng.choice(["cors", "no-cors", "same-origin"])
        asked = self.rng.choice([self.act(), self.get(self.base), self.get("/api/work")])
        return (*asked[:3], {**asked[3], "Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode})

    def token(self):
        token = self.rng.choice(["", "x" * 32, self.client.csrf[:32], "é" * 32, "0" * 5000])
        reader = self.rng.choice(["Ann", "Bob", "nobody", "", "../Ann", "shared"])
        return "GET", f"/login?reader={quote(reader)}&token={quote(token)}", None, {}

    def session(self):
        name, value = self.client.cookie.split("=", 1)
        at = self.rng.randrange(len(value))
        wrong = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        text = self.rng.choice([wrong, "", ".", value.split(".")[0], value + "A", "null.null", "\xff.\xff"])
        cookie = self.rng.choice([None, f"{name}={text}", f"other={value}"])
        asked = self.rng.choice([self.act(), self.get(self.base), self.get("/"), self.get("/api/work")])
        return (*asked[:3], {**asked[3], "Cookie": cookie})

    def csrf(self):
        tokens = [None, "", self.client.csrf[:-1], self.client.csrf + "A", self.client.csrf.swapcase(), "\xe9"]
        return self.act({"X-CSRF-Token": self.rng.choice(tokens)})

    def content_type(self):
        kinds = [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
        return self.act({"Content-Type": self.rng.choice(kinds)})

    def size(self):
        many = self.rng.choice([70_000, 300_000])
        method, path, _, headers = self.act()
        body = self.rng.choice([b" " * many, b"[" * many, json.dumps({"lesions": [1] * many}).encode()])
        return method, path, body, headers

    def malformed(self):
        method, path, body, headers = self.act()
        cut = body[: self.rng.randrange(len(body))]
        bodies = [cut, b"", b"null", b"[]", b"1", b"\xff\xfe", b"[" * 5000, body.replace(b"1", b"NaN", 1)]
        bodies += [body.replace(b'"seconds": 1', b'"seconds": Infinity'), b'"text"', b"{}", body + body]
        return method, path, self.rng.choice(bodies), headers

    def label(self):
        label = self.rng.choice([0, 6, 7, 12, 255, 256, -1, 2.5, "2", True, [2], 1e30, {}])
        return self.act(action="assign", site=label)

    def voxel(self):
        voxel = [self.rng.randrange(n) for n in chest_size()]
        axis = self.rng.randrange(3)
        wrong = [-1, chest_size()[axis], 10**12, 1.5, "1", False]
        voxel[axis] = self.rng.choice(wrong)
        voxel = self.rng.choice([voxel, voxel, voxel[:2], [*voxel, 1], 5, {"k": 1}])
        return self.other_act(action="pick", voxel=voxel, site=2)

    def lesion(self):
        wrong = [
            [],
            [0],
            [-1],
            [65536],
            [60000],
            ["1"],
            [1.0],
            [True],
            1,
            {},
            "1",
            [self.ids[0]] * 5001,
            [[1]],
            [10**30],
        ]
        return self.act(lesions=self.rng.choice(wrong))

    def version_number(self):
        return self.act(version=self.rng.choice([-1, 1, 99, "0", 0.5, True, 2**40, [0], {}]))

    def action(self):
        names = ["", "delete", "__class__", "export_review", "carry_out", 5, ["reject"], "REJECT", "give", {}]
        return self.act(action=self.rng.choice(names))

    def part(self):
        name = self.rng.choice(["action", "method", "version", "seconds", "lesions"])
        extra = self.rng.choice(["path", "file", "reader", "__proto__", "x" * 1000])
        seconds = self.rng.choice([-1, 1e9, "1", True, [1]])
        return self.rng.choice([self.act(**{name: None}), self.act(**{extra: 1}), self.act(seconds=seconds)])

    def stroke(self):
        parts = {"points": [[5, 30, 30]], "radius_mm": 2, "flat": True, "label": 2}
        wrong = {
            "points": [[], [[5, 30]], [[5, 30, 64]], [[-1, 30, 30]], [[5, 30, "x"]], [[5, 30, 30]] * 501, "5,30,30"],
            "radius_mm": [0, -1, 51, "2", True, 1e308],
            "flat": [1, "true"],
            "label": [6, 12, -1, 2.0, "2", True],
        }
        name = self.rng.choice(list(wrong))
        return self.other_act(action="paint", **{**parts, name: self.rng.choice(wrong[name])})

    def cut(self):
        parts = {"lesion": self.ids[0], "point": [5, 30, 30], "normal": [0, 0, 1], "label": 4}
        wrong = {
            "lesion": [0, 60000, "1", [1]],
            "point": [[5, 30], [99, 30, 30], [5, 30, -9], "x"],
            "normal": [[0, 0, 0], [0, 1], [0, 0, "1"], [0, 0, 1e9]],
            "label": [0, 6, 12, -1, "4"],
        }
        name = self.rng.choice(list(wrong))
        return self.other_act(action="cut", **{**parts, name: self.rng.choice(wrong[name])})

    def method(self):
        choice = self.rng.choice(["PUT", "DELETE", "PATCH", "POST", "TRACE", "OPTIONS"])
        path = self.rng.choice(["/", "/api/work", "/static/scan.js", self.base, "/login"])
        return choice, path, b"{}", self.client.headers


def test_300_requests_are_refused(served):
    server, results = served
    client = server.client("Ann")
    made = Requests(client, seed=27)
    before = client.get(made.base)
    for number in range(COUNT):
        method, path, body, headers = made.made(number)
        told = (number, method, path, headers, (body or b"")[:200])
        status, content, answered = client.raw(method, path, body, headers)
        assert 400 <= status < 500, (told, status, content[:300])
        assert b"Traceback" not in content, told
        assert b"root:" not in content, told
        assert "Set-Cookie" not in answered, told
    assert client.get(made.base) == before
    assert not list(results.glob("*/reviews/*"))
    assert "Traceback" not in server.stop()


def test_a_request_that_is_right_is_done(served, tmp_path):
    """What the others are changed from."""
    _, results = served
    server = ReviewServer.start(results, "--reader", "Ann", data=tmp_path)
    try:
        client = server.client("Ann")
        method, path, body, headers = Requests(client, seed=1).act()
        assert client.raw(method, path, body, headers)[0] == 200
    finally:
        server.stop()


def test_a_proxys_user_header_names_the_reader(served, tmp_path):
    settings = {"origin": "https://review.example.org", "user_header": "X-User", "port": free_port()}
    options = ("--reader", "Ann", "--settings", json.dumps(settings))
    server = ReviewServer.start(served[1], *options, data=tmp_path)
    try:
        client = Client.bare(server, "review.example.org")
        assert client.raw("GET", "/", headers={"X-User": "Ann"})[0] == 200
        assert client.raw("GET", "/", headers={"X-User": "Eve"})[0] == 401
        assert client.raw("GET", "/")[0] == 401
        assert client.raw("GET", "/", headers={"X-User": ["Ann", "Eve"]})[0] == 401
        assert client.raw("GET", "/login?reader=Ann&token=x", headers={})[0] == 401
        assert client.raw("GET", "/", headers={"X-User": "Ann", "Host": "other.example.org"})[0] == 403
    finally:
        server.stop()

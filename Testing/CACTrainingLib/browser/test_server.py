"""Test `cac review` by its requests: reviews, versions, journals, double reading, export, and access."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.cli import main as scoring
from CACScoringLib.core.labels import NOT_CORONARY, Artery
from CACScoringLib.scans.source import scan_digest
from CACScoringLib.scans.table import scans_of_table
from CACTrainingLib.cli import main as cli
from CACTrainingLib.project import annotation_files, annotations
from CACTrainingLib.project.project import NewScan, Project

pytestmark = pytest.mark.long


def lesion_ids(state, left_out=False):
    return [x["id"] for x in state["methods"]["threshold"]["lesions"] if (x["left_out"] is not None) == left_out]


def first_lesion(state) -> int:
    """Id of the lesion that begins first in the scan: each blind reader has an order of ids of his own."""
    runs = state["methods"]["threshold"]["runs"]
    return min(tuple(runs[n : n + 5]) for n in range(0, len(runs), 5))[4]


def journals(results):
    return sorted(results.glob("*/reviews/*.jsonl"))


def refused(client, base, action, **parts) -> bool:
    """True if the server refuses an action."""
    request = {"action": action, "method": "threshold", "version": client.get(base)["version"], "seconds": 1, **parts}
    return client.post(f"{base}/act", request)[0] == 422


class TestReview:
    def test_the_page_begins_with_the_numbers_of_cac_score(self, start, result, results):
        client = start("--reader", "Ann").client("Ann")
        assert [row["state"] for row in client.rows().values()] == ["new"] * 3
        state = client.get(client.base("one"))
        for method, expected in result.methods.items():
            total = state["methods"][method]["total"]
            assert total["agatston"] == expected.total.agatston
            assert total["pseudo_mass_hu_mm3"] == expected.total.pseudo_mass_hu_mm3
        assert (len(lesion_ids(state)), len(lesion_ids(state, left_out=True))) == (9, 6)
        scored = json.loads((results / "one" / "scores.json").read_text(encoding="utf-8"))["methods"]["threshold"]
        masses = {x["id"]: x["integrated_mass_mg"] for x in scored["lesions"]}
        lesions = state["methods"]["threshold"]["lesions"]
        assert {x["id"]: x["integrated_mass_mg"] for x in lesions if x["id"] in masses} == masses
        assert all(masses.values())

    def test_totals_are_those_of_cac_score_with_the_exported_labels(self, start, results, tmp_path):
        client = start("--reader", "Ann").client("Ann")
        base = client.base("one")
        state = client.get(base)
        counted, left_out = lesion_ids(state), lesion_ids(state, left_out=True)
        client.act(base, "assign", lesions=counted[:1], site=int(Artery.LM))
        client.act(base, "reject", lesions=counted[1:3])
        client.act(base, "assign", lesions=left_out[:2], site=int(Artery.RCA))
        lesion = next(x for x in client.get(base)["methods"]["threshold"]["lesions"] if x["id"] == counted[4])
        runs = state["methods"]["threshold"]["runs"]
        k, j, i, _, _ = next(runs[n : n + 5] for n in range(0, len(runs), 5) if runs[n + 4] == lesion["id"])
        new_site = int(Artery.LCX if lesion["site"] != Artery.LCX else Artery.LAD)
        client.act(base, "cut", lesion=lesion["id"], point=[k, j, i + 0.5], normal=[0, 0, 1], label=new_site)
        client.act(base, "paint", points=[[k, j, i], [k, j + 1, i]], radius_mm=2.0, flat=True, label=0)
        assert client.post(f"{base}/export", {}) == (200, {"folder": "draft"})
        assert not (results / "one" / "reviewed").exists()
        state = client.act(base, "accept")
        assert state["methods"]["threshold"]["status"] == "reviewed"
        status, answer = client.post(f"{base}/export", {})
        assert (status, answer) == (200, {"folder": "reviewed"})
        out = tmp_path / "again"
        exported = results / "one" / "reviewed"
        inputs = ["--heart", results / "one" / "heart.nii.gz", "--lesions", exported / "lesions.nii.gz"]
        command = ["score", results.parent / "cts" / "one.nii.gz", *inputs, "--output", out]
        assert scoring.main([*map(str, command), "--threshold-only"]) == 0
        again = json.loads((out / "scores.json").read_text(encoding="utf-8"))["methods"]["threshold"]
        reviewed = state["methods"]["threshold"]
        for name in ("agatston", "clinical_agatston", "volume_mm3", "pseudo_mass_hu_mm3", "lesions", "peak_hu"):
            assert reviewed["total"][name] == again["total"][name]
            for artery, score in reviewed["arteries"].items():
                assert score[name] == again["arteries"][artery][name]
        counted = [x for x in reviewed["lesions"] if x["left_out"] is None and x["site"] != NOT_CORONARY]
        assert sorted(x["volume_mm3"] for x in again["lesions"]) == sorted(x["volume_mm3"] for x in counted)
        record = json.loads((exported / "scores.json").read_text(encoding="utf-8"))
        assert record["review"]["program"] == "CAC review in the browser"
        assert (exported / "report.html").is_file()

    def test_every_slice_of_every_image_is_that_of_its_file(self, start, results):
        client = start("--reader", "Ann").client("Ann")
        base = client.base("one")
        folder = results / "one"
        files = {"map": folder / "calcium_map.nii.gz"}
        files |= {"ct": results.parent / "cts" / "one.nii.gz", "heart": folder / "heart.nii.gz"}
        files |= {"territories": folder / "territories.nii.gz"}
        images = {name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for name, file in files.items()}
        images["healthy"] = images["ct"] - images["map"]
        assert set(client.get(base)["images"]) == set(images)
        # Images alternate, so that no single one stays in memory.
        for k in range(0, len(images["ct"]), 3):
            for name, values in images.items():
                status, content, _ = client.raw("GET", f"{base}/slice/{name}/{k}", headers={"Cookie": client.cookie})
                kind = np.uint8 if name in ("heart", "territories") else np.dtype("<i2")
                expected = np.rint(values[k]).astype(kind).tobytes()
                assert (status, content == expected) == (200, True), (name, k)
        for name in ("volume/ct", "volume/map", "volume/healthy", "lesions/threshold", "lesions/decomposition"):
            status, content, headers = client.raw("GET", f"{base}/{name}", headers={"Cookie": client.cookie})
            assert (status, headers["Cache-Control"]) == (200, "no-store")
            assert content[344:347] == b"n+1"

    def test_the_ct_is_there_before_the_review(self, start, results):
        """The CT is served even if the review cannot be opened."""
        client = start("--reader", "Ann").client("Ann")
        state = client.get(client.base("one"))
        (results / "two" / "lesions.nii.gz").unlink()
        base = client.base("two")
        first = client.get(f"{base}/first")
        assert {name: first[name] for name in ("size", "spacing_mm", "heart_box")} == {
            name: state[name] for name in ("size", "spacing_mm", "heart_box")
        }
        lesion = next(lesion for lesion in state["methods"]["threshold"]["lesions"] if lesion["id"] == 1)
        assert lesion["slices"][0] <= first["first_slice"] <= lesion["slices"][1]
        for path, status in (("/slice/ct/3", 200), ("/slice/ct/9999", 404), ("", 422)):
            assert client.raw("GET", base + path, headers={"Cookie": client.cookie})[0] == status


def test_errors_are_pages_for_browsers(start):
    client = start("--reader", "Ann").client("Ann")
    for path, headers, status in (("/", {}, 401), ("/scan/0000", {"Cookie": client.cookie}, 404)):
        answer = client.raw("GET", path, headers={"Accept": "text/html,*/*", **headers})
        assert (answer[0], answer[2]["Content-Type"]) == (status, "text/html; charset=utf-8")
        assert "default-src 'none'" in answer[2]["Content-Security-Policy"]


class TestVersions:
    def test_a_change_of_a_stale_version_is_refused_and_names_the_reader(self, start):
        server = start("--reader", "Ann", "--reader", "Bob")
        ann, bob = server.client("Ann"), server.client("Bob")
        base = ann.base("one")
        stale = bob.get(base)
        first = lesion_ids(stale)[0]
        changed = ann.act(base, "assign", lesions=[first], site=4)
        request = {"action": "reject", "method": "threshold", "version": stale["version"], "seconds": 1}
        status, answer = bob.post(f"{base}/act", {**request, "lesions": [first]})
        assert status == 409
        assert "by Ann" in answer["error"]
        assert bob.get(base)["methods"] == changed["methods"]

    def test_only_the_first_of_many_simultaneous_changes_is_accepted(self, start, results):
        server = start("--reader", "Ann")
        clients = [server.client("Ann") for _ in range(6)]
        base = clients[0].base("one")
        first = lesion_ids(clients[0].get(base))[0]

        def post(client, site):
            request = {"action": "assign", "method": "threshold", "version": 0, "seconds": 0}
            return client.post(f"{base}/act", {**request, "lesions": [first], "site": site})[0]

        with ThreadPoolExecutor(6) as threads:
            assert sorted(threads.map(post, clients, [1, 4] * 3)) == [200] + [409] * 5
        assert len(journals(results)[0].read_text(encoding="utf-8").splitlines()) == 2


class TestJournal:
    def test_a_killed_server_resumes(self, start_process, results):
        server = start_process("--reader", "Ann")
        client = server.client("Ann")
        base = client.base("one")
        ids = lesion_ids(client.get(base))
        client.act(base, "assign", lesions=ids[:1], site=4)
        client.act(base, "reject", lesions=ids[1:2])
        before = client.act(base, "undo")
        server.kill()
        file = journals(results)[0]
        file.write_bytes(file.read_bytes() + b'{"number": 4, "time"')
        again = start_process("--reader", "Ann", "--settings", json.dumps({"port": server.port}))
        client.server = again
        assert client.raw("GET", base, headers={"Cookie": client.cookie})[0] == 401, "sessions end with the server"
        client = again.client("Ann")
        after = client.get(base)
        assert after["version"] == before["version"] == 3
        assert after["methods"] == before["methods"]
        assert client.act(base, "redo")["methods"] != before["methods"]
        while client.get(base)["can_undo"]:
            last = client.act(base, "undo")
        assert last["methods"]["threshold"]["total"]["lesions"] == 9
        readers = {json.loads(line)["reader"] for line in file.read_text(encoding="utf-8").splitlines()[1:]}
        assert readers == {"Ann"}
        assert client.rows()["one"]["seconds"] > 0

    def test_two_servers_do_not_review_the_same_folder(self, start, results, capsys):
        start("--reader", "Ann")
        assert cli.main(["review", str(results), "--settings", '{"port": 0}']) == 2
        assert "Another server" in capsys.readouterr().err


class TestDoubleReading:
    OPTIONS = ("--double", "--reader", "Ann", "--reader", "Bob")

    def test_readers_see_nothing_of_each_other_before_the_consensus(self, start):
        server = start(*self.OPTIONS)
        ann, bob = server.client("Ann"), server.client("Bob")
        base = ann.base("one")
        ids = lesion_ids(ann.get(base))
        before = bob.get(base)
        ann.act(base, "assign", lesions=ids[:1], site=4)
        ann.act(base, "reject", lesions=ids[1:2])
        ann.act(base, "accept")
        assert bob.get(base) == before | {"seconds": 0}
        row = bob.rows()["one"]
        assert (row["state"], row["consensus"]) == ("new", None)
        assert bob.post(f"{bob.base('one', 'consensus')}/act", {})[0] == 400
        bob.act(base, "reject", lesions=ids[1:2])
        bob.act(base, "accept")
        assert bob.rows()["one"]["consensus"] == "new"
        consensus = bob.get(bob.base("one", "consensus"))
        # They disagree about the artery of the first lesion; both rejected the second; they agree on all others.
        sites = {x["id"]: x["site"] for x in consensus["methods"]["threshold"]["lesions"]}
        assert ids[0] in lesion_ids(consensus, left_out=True)
        assert sites[ids[1]] == NOT_CORONARY
        assert set(ids[2:]) <= set(lesion_ids(consensus))
        assert consensus["methods"]["threshold"]["undecided"] == ids[:1]
        request = {"action": "accept", "method": "threshold", "version": consensus["version"], "seconds": 0}
        status, answer = bob.post(f"{bob.base('one', 'consensus')}/act", request)
        assert (status, "disagree" in answer["error"]) == (422, True)
        decided = bob.act(bob.base("one", "consensus"), "assign", lesions=ids[:1], site=1)
        assert decided["methods"]["threshold"]["undecided"] == []
        assert decided["methods"]["threshold"]["arteries"]["LM"]["lesions"] == 1
        assert ann.get(ann.base("one", "consensus"))["methods"] == decided["methods"]

    def test_agreement_of_two_readers(self, start):
        server = start(*self.OPTIONS)
        ann, bob = server.client("Ann"), server.client("Bob")
        no_estimate = dict.fromkeys(("estimate", "low", "high"))
        nothing = {"kappa": None, "icc": None, "dice": no_estimate, "lesion_kappa": None}
        assert ann.get("/api/agreement")["pairs"] == [{"readers": ["Ann", "Bob"], "scans": 0, **nothing}]
        for client in (ann, bob):
            client.act(client.base("one"), "accept")
            client.act(client.base("two"), "no-calcium")
        pair = ann.get("/api/agreement")["pairs"][0]
        assert (pair["scans"], pair["kappa"]["estimate"], pair["icc"]["estimate"]) == (2, 1.0, 1.0)
        assert pair["dice"]["estimate"] == 1.0
        # Ann takes one lesion out of eight, so that they agree on all voxels but its own.
        base = ann.base("one")
        counted = [x for x in ann.get(base)["methods"]["threshold"]["lesions"] if x["left_out"] is None]
        ann.act(base, "reject", lesions=[counted[0]["id"]])
        remaining_mm3 = sum(x["volume_mm3"] for x in counted[1:])
        dice = 2 * remaining_mm3 / (2 * remaining_mm3 + counted[0]["volume_mm3"])
        pair = bob.get("/api/agreement")["pairs"][0]
        assert pair["dice"]["estimate"] == pytest.approx(dice, abs=1e-4)

    def test_an_adjudicator_alone_decides_without_the_networks(self, start):
        server = start(*self.OPTIONS, "--blind", "--adjudicator", "Eve")
        ann, bob, eve = map(server.client, ("Ann", "Bob", "Eve"))
        rows = eve.get("/api/work")["rows"]
        assert {(row["reading"], row["name"][:4]) for row in rows} == {("consensus", "Case")}
        base = f"/api/scans/{rows[0]['id']}"
        for client, site in ((ann, Artery.LAD), (bob, Artery.LCX)):
            assert eve.raw("GET", f"{base}/consensus", headers={"Cookie": eve.cookie})[0] == 400
            for row in client.get("/api/work")["rows"]:
                path = f"/api/scans/{row['id']}/own"
                client.act(path, "assign", lesions=[first_lesion(client.get(path))], site=int(site))
                client.act(path, "reject-rest")
                client.act(path, "accept")
        first = f"/api/scans/{ann.get('/api/work')['rows'][0]['id']}"
        for client, path in ((ann, f"{first}/consensus"), (eve, f"{base}/own")):
            assert client.raw("GET", path, headers={"Cookie": client.cookie})[0] == 400
        state = eve.get(f"{base}/consensus")
        method = state["methods"]["threshold"]
        assert len(method["undecided"]) == 1
        assert all(lesion["probability"] is None for lesion in method["lesions"])
        eve.act(f"{base}/consensus", "assign", lesions=method["undecided"], site=int(Artery.LAD))
        assert eve.act(f"{base}/consensus", "accept")["methods"]["threshold"]["status"] == "reviewed"

    def test_blind_readers_see_other_numbers_in_another_order(self, start):
        server = start(*self.OPTIONS, "--blind")
        orders = []
        for reader in ("Ann", "Bob"):  # all scans are equal
            client = server.client(reader)
            address = client.get("/api/work")["rows"][0]["id"]
            lesions = client.get(f"/api/scans/{address}/own")["methods"]["threshold"]["lesions"]
            assert [lesion["id"] for lesion in lesions] == list(range(1, len(lesions) + 1))
            orders.append([lesion["agatston"] for lesion in lesions])
        assert orders[0] != orders[1] != sorted(orders[1], reverse=True)
        assert sorted(orders[0]) == sorted(orders[1])

    @pytest.fixture
    def blind(self, start):
        """A blind reader, and the address of the first scan."""
        client = start(*self.OPTIONS, "--blind").client("Ann")
        return client, f"/api/scans/{client.get('/api/work')['rows'][0]['id']}/own"

    def test_blind_reading_hides_name_and_score_until_done(self, blind, result):
        client, base = blind
        rows = client.get("/api/work")["rows"]
        assert {row["name"] for row in rows} == {"Case 1", "Case 2", "Case 3"}
        assert all(row["agatston"] is None and not row["warnings"] and not row["category"] for row in rows)
        state = client.get(base)
        assert (state["name"], list(state["methods"])) == ("Case 1", ["threshold"])
        method = state["methods"]["threshold"]
        candidates = sum(lesion["site"] == Artery.UNASSIGNED for lesion in method["lesions"])
        assert candidates == len(method["lesions"]) > 0
        hidden = ("suggested", "probability", "left_out", "integrated_mass_mg", "mass_standard_error_mg")
        assert all(lesion[name] is None for lesion in method["lesions"] for name in hidden)
        assert method["total"]["agatston"] == 0
        assert not any(state[name] for name in ("warnings", "categories", "non_coronary"))
        assert state["table"]["rows"] == []
        assert f"{result.methods['threshold'].total.agatston:.0f}" not in json.dumps(state["headline"])
        assert set(state["images"]) <= {"ct", "heart"}
        images = ("map", "healthy", "territories")
        parts = [*(f"volume/{image}" for image in images), *(f"slice/{image}/5" for image in images)]
        for part in (*parts, "lesions/decomposition"):
            assert client.raw("GET", f"{base}/{part}", headers={"Cookie": client.cookie})[0] == 404
        request = {
            "action": "reviewed",
            "method": "decomposition",
            "version": state["version"],
            "seconds": 0,
            "on": True,
        }
        assert client.post(f"{base}/act", request)[0] == 404
        for reader in ("Ann", "Bob"):
            session = client.server.client(reader)
            for row in session.get("/api/work")["rows"]:
                assert not set(session.rows()) & {"one", "two", "three"}
                assert session.raw("GET", "/api/agreement", headers={"Cookie": session.cookie})[0] == 400
                final_state = session.act(f"/api/scans/{row['id']}/own", "no-calcium")
        assert final_state["methods"].keys() == {"threshold", "decomposition"}
        assert client.rows().keys() == {"one", "two", "three"}
        assert client.get("/api/agreement")["pairs"][0]["scans"] == 3
        status, answer = client.post(f"{base}/act", request | {"method": "threshold", "version": 2, "on": False})
        assert (status, "none is changed any more" in answer["error"]) == (400, True)

    def test_messages_to_a_blind_reader_name_no_scan(self, blind, results):
        client, base = blind
        client.get(base)
        for journal in results.glob("*/reviews/*.jsonl"):
            with journal.open("a") as file:
                file.write("{}\n")
        request = {"action": "no-calcium", "method": "threshold", "version": 1, "seconds": 0}
        for status, content in (client.post(f"{base}/act", request), client.post(f"{base}/export", {})):
            assert status == 422
            assert "Case 1" in content["error"]
            assert not any(f"{name}/" in content["error"] for name in ("one", "two", "three"))
        problems = [row["problem"] for row in client.get("/api/work")["rows"]]
        assert any("Case" in problem for problem in problems)
        assert not any(str(results) in problem for problem in problems)

    def test_blind_reader_decides_about_every_candidate(self, blind):
        """A blind reader cannot confirm undecided candidates, so that mere confirmation is no agreement."""
        client, base = blind
        lesion = client.get(base)["methods"]["threshold"]["lesions"][0]
        assert refused(client, base, "accept")
        state = client.act(base, "assign", lesions=[lesion["id"]], site=int(Artery.RCA))
        assert state["methods"]["threshold"]["total"]["agatston"] == pytest.approx(lesion["agatston"])
        assert refused(client, base, "reviewed", on=True)
        client.act(base, "reject-rest")
        state = client.act(base, "accept")
        assert state["methods"]["threshold"]["status"] == state["headline"]["state"] == "reviewed"
        assert state["methods"]["threshold"]["total"]["agatston"] == pytest.approx(lesion["agatston"])
        assert "decomposition" not in state["methods"], "it is shown after all readings"


class TestProject:
    def test_a_review_becomes_annotations(self, start, results, tmp_path):
        project = Project.create(tmp_path / "project")
        added = project.add([NewScan("one", "p1", results.parent / "cts" / "one.nii.gz")]).added
        client = start("--reader", "Ann", "--project", str(project.folder)).client("Ann")
        base = client.base("one")
        status, answer = client.post(f"{base}/project", {})
        assert status == 422
        assert "not done" in answer["error"]
        state = client.act(base, "accept")
        assert client.post(f"{base}/project", {}) == (200, {"scan": added[0].id})
        regions = annotations.read_annotated_mask(project, added[0].id, "Ann", "regions")
        values = sitk.GetArrayViewFromImage(regions)
        voxel = 27.0  # mm³
        assert (values > 0).sum() * voxel == state["methods"]["threshold"]["total"]["volume_mm3"]
        labels = annotations.slice_annotations(project, added[0].id, "Ann").labels
        visible = {k for k, label in labels.items() if label == annotation_files.SliceLabel.VISIBLE}
        assert visible == set(values.any((1, 2)).nonzero()[0].tolist())
        client.act(client.base("two"), "accept")
        assert client.post(f"{client.base('two')}/project", {})[0] == 200, "its CT has the same content"

    def test_reviews_of_a_scored_project_are_exported_into_it(self, results, start, tmp_path, capsys):
        project, names = Project.create(tmp_path / "project"), ("two", "one")
        cts = {name: results.parent / "cts" / f"{name}.nii.gz" for name in names}
        # Changed, because a project takes scans with the same content as one.
        image = sitk.ReadImage(str(cts["two"]))
        image[0, 0, 0] = -1000
        sitk.WriteImage(image, str(cts["two"]))
        project.add([NewScan(name, f"patient of {name}", cts[name]) for name in names])
        assert cli.main(["review", str(project.folder)]) == 2
        assert "cac cohort" in capsys.readouterr().err
        root = project.folder / "results"
        results.rename(root)
        record = json.loads((root / "cohort.json").read_text(encoding="utf-8"))
        for scan in scans_of_table(project.folder / "scans.csv")[0]:
            record["scans"][scan.name]["scan"] = scan_digest(scan.key)
        (root / "cohort.json").write_text(json.dumps(record), encoding="utf-8")
        client = start("--reader", "Ann", of=project.folder).client("Ann")
        patients = [(name, row["patient"]) for name, row in client.rows().items()]
        assert patients == [("two", "patient of two"), ("one", "patient of one")]
        base = client.base("one")
        client.act(base, "accept")
        scan = next(scan for scan in project.scans if scan.name == "one")
        assert client.post(f"{base}/project", {}) == (200, {"scan": scan.id})
        assert annotations.annotators(project, scan.id) == ["Ann"]


def test_the_folder_of_cac_score_is_reviewed_with_the_ct(results, start, capsys):
    assert cli.main(["review", str(results / "one")]) == 2
    assert "--ct" in capsys.readouterr().err
    ct = results.parent / "cts" / "one.nii.gz"
    client = start("--ct", str(ct), "--reader", "A", of=results / "one").client("A")
    assert client.act(client.base("one"), "accept")["version"] == 1


def test_unsafe_options_are_refused(written, capsys):
    settings = ({"host": "0.0.0.0"}, {"host": "example.org"}, {"port": 70000}, {"user_header": "X-User"})
    settings += ({"origin": "https://example.org/path"}, {"origin": "example.org"})
    readers = (("--double",), ("--double", "--reader", "A", "--reader", "B", "--adjudicator", "A"))
    readers += (("--reader", " "), ("--reader", "a\nb"))
    for options in (*(("--settings", json.dumps(content)) for content in settings), *readers):
        assert cli.main(["review", str(written), *options]) == 2, options
    assert "Traceback" not in capsys.readouterr().err

"""`cac score --radiograph` from end to end, with a model that learned nothing."""

import json
from html.parser import HTMLParser

import pytest
import radiograph_models
import SimpleITK as sitk
from radiograph_files import chest, stored, write_dicom

from CACScoringLib.cli import main as cli
from CACScoringLib.cli.radiograph import RadiographInput, score_files
from CACScoringLib.core.acquisition import PSEUDONYM
from CACScoringLib.core.files import file_sha256
from CACScoringLib.models import cards as models
from CACScoringLib.networks.configs import RadiographNetConfig
from CACScoringLib.radiograph.score import area_of, image_warning
from CACScoringLib.report.radiograph import result_as_html

MODEL = "radiograph-untrained"


@pytest.fixture(autouse=True)
def _own_models(tmp_path, monkeypatch):
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    radiograph_models.save_untrained(tmp_path / "models", MODEL)


@pytest.fixture
def dicom(tmp_path):
    return write_dicom(tmp_path / "pa.dcm", stored(chest()))


def score(*arguments):
    return cli.main(["score", *map(str, arguments), "--progress", "none"])


def settings(**facts):
    return "--settings", json.dumps({"radiograph": facts})


class TestCommand:
    def test_a_folder_of_results(self, dicom, tmp_path, capsys):
        out = tmp_path / "out"
        assert score("--radiograph", dicom, *settings(bmi_kg_m2=27.5), "--model", MODEL, "--output", out) == cli.DONE
        document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        assert document["schema"] == "cac-radiograph/1"
        facts = {"file_format": "DICOM", "view": "PA", "pixel_mm": [1.0, 1.0], "rows": 430, "columns": 430}
        digests = {name: document["input"]["PA"].pop(name) for name in PSEUDONYM}
        assert None not in digests.values()
        assert document["input"] == {"PA": {"file": "pa.dcm", **facts}}
        card = models.find_model("radiograph", MODEL).card
        assert document["models"] == [{"name": MODEL, "sha256": card.sha256}]
        assert document["factors"] == {"age_years": 61, "sex": "F", "bmi_kg_m2": 27.5}
        assert [t["agatston"] for t in document["thresholds"]] == [0, 100, 400]
        assert [t["auc"] for t in document["thresholds"]] == [0.75, 0.8, None]
        for key in ("probability_image", "probability_with_factors"):
            values = [t[key] for t in document["thresholds"]]
            assert values == sorted(values, reverse=True)
            assert all(0 <= value <= 1 for value in values)
        assert document["warnings"][0]["code"] == "digital-patients"
        assert set(document["seconds"]) == {"reading", "scoring", "report"}
        view = document["views"]["PA"]
        assert view["field_mm"] == 16
        for name in (view["view_file"], view["evidence_file"]):
            image = sitk.ReadImage(out / name)
            assert image.GetSize() == (864, 864, 1)
            assert image.GetSpacing() == (0.5, 0.5, 1)
            assert 0 <= sitk.GetArrayFromImage(image).min() < sitk.GetArrayFromImage(image).max() <= 1
        assert "above 0" in capsys.readouterr().out
        stated = document["provenance"]
        assert str(tmp_path) not in json.dumps(stated)
        assert stated["inputs_sha256"] == {"PA": file_sha256(dicom)}
        assert stated["cards_sha256"] == {"radiograph": file_sha256(models.find_model("radiograph", MODEL).path)}
        assert (stated["settings"]["bmi_kg_m2"], stated["settings"]["pa"]) == (27.5, "pa.dcm")

    def test_both_views(self, dicom, tmp_path):
        config = RadiographNetConfig(views=("PA", "lateral"), size=32, width=4)
        radiograph_models.save_untrained(tmp_path / "models", "both", config)
        lateral = write_dicom(tmp_path / "side.dcm", stored(chest()), ViewPosition="LL")
        out = tmp_path / "out"
        files = ("--radiograph", dicom, *settings(lateral=str(lateral)))
        assert score(*files, "--model", "both", "--output", out) == cli.DONE
        document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        assert list(document["views"]) == ["PA", "lateral"]
        assert document["factors"] is None
        assert (out / "evidence_lateral.nii.gz").exists()

    @pytest.mark.parametrize(
        ("more", "code", "words"),
        [
            (["--heart", "mask.nrrd", "--dicom"], cli.BAD_USAGE, "heart, dicom: for a CT only"),
            (["--model", MODEL, "--model", "other"], cli.BAD_USAGE, "one"),
            (settings(bmi_kg_m2=300), cli.BAD_INPUT, "body mass index is 300"),
            (settings(age_years=3), cli.BAD_INPUT, "age is 3"),
            (settings(lateral="missing.dcm"), cli.BAD_INPUT, "missing.dcm does not exist"),
        ],
    )
    def test_what_cannot_be_scored(self, dicom, tmp_path, capsys, more, code, words):
        model = [] if "--model" in more else ["--model", MODEL]
        assert score("--radiograph", dicom, "--output", tmp_path / "out", *more, *model) == code
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestFactors:
    def scored(self, dicom, tmp_path, **facts):
        return score_files(RadiographInput(dicom, **facts), tmp_path / "out", MODEL)

    def test_what_is_given_counts_before_the_file(self, dicom, tmp_path):
        result = self.scored(dicom, tmp_path, age_years=44, sex="M", bmi_kg_m2=22.0)
        assert (result.factors.age_years, result.factors.sex) == (44, "M")
        warnings = [w.message for w in result.warnings if w.code == "factors-differ"]
        assert [m.split(" given")[0] for m in warnings] == ["The age", "The sex"]

    def test_without_a_body_mass_index_none_is_used(self, dicom, tmp_path):
        result = self.scored(dicom, tmp_path, age_years=61)
        assert result.factors is None
        assert [w.code for w in result.warnings].count("factors-incomplete") == 1


class _Page(HTMLParser):
    """Tags and text of a page; attributes that lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text, self.links = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href") and not v.startswith("data:image/jpeg;base64,")]

    def handle_data(self, data):
        self.text += data


class TestReport:
    def test_it_needs_no_other_file_and_escapes_text_and_names_the_patient_only_when_asked(self, tmp_path):
        hostile = write_dicom(
            tmp_path / "<b>pa&.dcm",
            stored(chest()),
            Manufacturer="<script>alert(1)</script>",
            BodyPartExamined="<img src=x>",
        )
        result = score_files(RadiographInput(hostile, bmi_kg_m2=25.0), tmp_path / "out", MODEL)
        text = result_as_html(result)
        page = _Page(text)
        assert not page.links
        assert page.tags.count("img") == 2
        assert result.card.sha256 in page.text
        assert page.text.index("No real radiograph") < page.text.index("Probability of coronary calcium")
        assert not [markup for markup in ("<script>alert", "<img src=x>", "<b>pa") if markup in text.lower()]
        assert "<script>alert(1)</script>" in page.text
        assert "Doe" not in text
        assert "Doe^Jane" in _Page(result_as_html(result, identify=True)).text


def test_patients_further_from_training_count_first():
    areas = {
        "external_auc_above_0": 0.6,
        "cross_validated_auc_above_0": 0.7,
        "cross_validated_auc_from_100": 0.71,
        "cross_validated_with_factors_auc_above_0": 0.72,
        "external_auc_from_100": None,
    }
    card = radiograph_models.card_for(radiograph_models.SMALL, validation=areas)
    assert area_of(card, 0).value == 0.6
    assert area_of(card, 100).value == 0.71
    assert area_of(card, 0, with_factors=True).value == 0.72


def test_a_picture_that_was_not_shown_to_tell_anything_is_doubted():
    areas = {"auc_above_0": 0.8, "auc_above_0_95": [0.7, 0.9], "auc_from_100": 0.6, "auc_from_100_95": [0.45, 0.75]}
    card = radiograph_models.card_for(radiograph_models.SMALL, validation=areas)
    (warning,) = image_warning(card)
    assert warning.code == "image-not-proven"
    assert "100 or more: AUC 0.60 [0.45, 0.75]" in warning.message
    assert "above 0" not in warning.message
    proven = {name: value for name, value in areas.items() if "above_0" in name}
    assert image_warning(radiograph_models.card_for(radiograph_models.SMALL, validation=proven)) == ()
    low = {**proven, "auc_above_0": 0.59, "auc_above_0_95": [0.55, 0.63]}
    (warning,) = image_warning(radiograph_models.card_for(radiograph_models.SMALL, validation=low))
    assert "above 0: AUC 0.59" in warning.message

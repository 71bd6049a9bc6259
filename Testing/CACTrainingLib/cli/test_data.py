"""`cac data`: facts of collections, import from the command line, and errors without the package."""

from collection_files import chest, labels, write_image
from in_this_process import InThisProcess

from CACTrainingLib.cli import main as cli
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.project.project import Project


def test_import(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    write_image(tmp_path / "a" / "TRV1P1CTI.mhd", chest())
    write_image(tmp_path / "a" / "TRV1P1R.mhd", labels())
    write_image(tmp_path / "a" / "TRV1P2R.mhd", labels())
    write_image(tmp_path / "a" / "TRV1P3CTI.mhd", chest())
    write_image(tmp_path / "a" / "TRV1P3R.mhd", labels())
    words = ["data", "import", "orcascore", str(tmp_path / "a"), "--output", str(tmp_path / "project")]
    assert cli.main(words) == 0
    streams = capsys.readouterr()
    assert "orCaScore, MICCAI 2014: Terms of the challenge" in streams.out
    assert "1 scans in the project, 1 left out\n  1 left out: It is the same scan as 0001" in streams.out
    assert "Left out of orCaScore, MICCAI 2014: TRV1P2" in streams.err
    assert len(Project.open(tmp_path / "project").scans) == 1

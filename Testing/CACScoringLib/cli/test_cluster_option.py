"""The option that names a cluster, of commands that share out work."""

import argparse

import pytest

from CACScoringLib.cli import main as scoring
from CACScoringLib.cli.cluster_option import add_cluster_argument, extras_of_cluster, on_cluster, shares_out
from CACScoringLib.cohort.cluster import ClusterError, chosen_cluster
from CACTrainingLib.cli import main as training


def parsed(*arguments):
    return training.make_parser().parse_args(list(arguments))


@pytest.mark.parametrize(
    "command",
    [
        ("cohort", "IN", "--output", "OUT"),
        ("evaluate", "detection", "--data", "D", "--output", "OUT"),
        ("evaluate", "models", "--data", "D", "--output", "OUT"),
        ("train", "slices", "--data", "D", "--output", "OUT"),
    ],
)
def test_its_commands(command, tmp_path):
    assert chosen_cluster().is_local
    with on_cluster(parsed(*command)):
        assert chosen_cluster().is_local
    options = parsed(*command, "--cluster", "tcp://head:8786")
    with on_cluster(options):
        assert chosen_cluster().address == "tcp://head:8786"
    assert "cluster" not in options.extras(options)
    file = tmp_path / "mine.yaml"
    file.write_text("class: SLURMCluster\n")
    for cluster in ("slurm", str(file)):
        options = parsed(*command, "--cluster", cluster)
        assert "cluster" in options.extras(options)


def test_no_cluster_is_told_before_anything_is_done(capsys):
    parser = argparse.ArgumentParser()
    add_cluster_argument(parser, "works")
    assert not shares_out(parser)
    with pytest.raises(ClusterError, match="no cluster 'cloud'"):
        on_cluster(parser.parse_args(["--cluster", "cloud"]))
    assert extras_of_cluster(parser.parse_args([])) == ()
    assert training.main(["cohort", "IN", "--output", "OUT", "--cluster", "cloud"]) == scoring.BAD_INPUT
    assert "no cluster 'cloud'" in capsys.readouterr().err

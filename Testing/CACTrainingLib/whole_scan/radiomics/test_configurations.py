"""What the study of radiomics fits."""

from CACTrainingLib.whole_scan.radiomics.configurations import (
    BASELINES,
    CLASSIFIERS,
    FEATURES,
    HELD_OUT,
    RADIOMICS,
    Configuration,
    configurations_of,
    counterpart,
    model_configurations,
    runs_of,
)


def test_every_set_of_features_meets_every_classifier_and_a_baseline_one():
    configurations = model_configurations(("heart", "candidates", "both", "own", "agatston"))
    assert {(one.features, one.classifier) for one in configurations} == {
        (name, classifier) for name in (*RADIOMICS, "own") for classifier in CLASSIFIERS
    } | {("agatston", "logistic")}
    assert "age-sex" in BASELINES
    assert not [one for one in model_configurations(tuple(RADIOMICS)) if one.features in BASELINES]


def test_what_differs_in_one_thing_has_its_counterpart():
    configurations = configurations_of(tuple(FEATURES), contrast=True)
    assert len(set(configurations)) == len(configurations)
    changed = [one for one in configurations if one.contrast or one.pseudo]
    assert {(one.contrast, one.pseudo) for one in changed} == {(True, False), (False, True)}
    assert {counterpart(one) for one in changed} <= set(configurations)
    assert not [one for one in configurations_of(tuple(FEATURES), contrast=False) if one.contrast]


def test_a_model_for_each_fold_and_one_for_those_held_out():
    runs = runs_of([Configuration(), Configuration("heart")], 3)
    assert len(set(runs)) == 8
    assert {run.fold for run in runs} == {0, 1, 2, HELD_OUT}

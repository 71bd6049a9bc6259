"""The codes of the warnings of training, each with what its reader should do; scoring's are in its own library."""

ADVICE = {
    # Digital patients, projects and data sets
    "annotation-doubt": "Check the annotation that the message names.",
    "body-cut-off": "Prefer a CT with a larger field of view.",
    "chest-cut-off": "Prefer a CT of the whole chest.",
    "digital-patient": "Do not interpret the numbers as performance in patients.",
    "heart-not-known": "Begin with a model that finds the heart.",
    "possible-calcium": "Check these places; do not use a scan that has calcium of its own.",
    "patient-id-missing": "Fill in the column patient, so that no patient is in both training and test.",
    "project-doubt": "Correct in the project what the message names.",
    "proposal-doubt": "Review the proposal before you accept it.",
    "radiograph-failed": "Correct what the message names, and rerun the command.",
    "scan-duplicate": "No action is needed. The scan is in the project already.",
    "scan-failed": "Correct what the message names, and rerun the command.",
    "scan-left-out": "Correct what the message names, or train without this scan.",
    "slices-out-of-range": "Prefer a CT with slices 3 mm apart, or do without super-resolution.",
    "split-without-calcium": "Label patients with calcium, and set their use.",
    "source-doubt": "Check the files that the message names.",
    # Training and studies
    "map-empty": "Follow the advice in the message, or stop the training.",
    "map-everywhere": "Follow the advice in the message, or stop the training.",
    "slices-not-separated": "Follow the advice in the message, or stop the training.",
    "training-restarted": "No action is needed. If it recurs, follow the advice of the warning before it.",
    "training-failed": "Correct what the message names, and rerun the study to resume it.",
}

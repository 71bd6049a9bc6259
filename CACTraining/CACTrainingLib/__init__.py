"""Training, studies, digital patients and annotation projects, without Qt: a room per capability."""

from CACScoringLib.core.files import resource_rows
from CACScoringLib.core.warning_codes import declare

declare(resource_rows("checks.csv", __name__))

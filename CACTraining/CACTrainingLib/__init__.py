"""Training, studies, digital patients and annotation projects, without Qt: a room per capability."""

from CACScoringLib.core.warning_codes import declare

from .warning_codes import ADVICE

declare(ADVICE)

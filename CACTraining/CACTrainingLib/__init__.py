"""Training, studies, digital patients and annotation projects, without Qt: a room per capability."""

from CACScoringLib.core.files import resource_blocks
from CACScoringLib.core.warning_codes import declare

declare(resource_blocks("Warnings", __name__))

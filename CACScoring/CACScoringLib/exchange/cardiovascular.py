"""The clinical score as a CT/MR Cardiovascular Analysis Report (PS3.16 TID 3900) with Calcium Scoring (TID 3905).

Both templates are extensible: each number also has its finding site, and the score of an artery with calcium is
inferred from its segment.
"""

from __future__ import annotations

from highdicom.seg import Segmentation
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentSequence,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    NumContentItem,
    TextContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from ..core.labels import Artery
from ..results import ScoreResult
from . import codes as cac
from .conclusion import conclusion
from .measurements import (
    Group,
    evaluated_images,
    observation_context,
    procedure,
    score_groups,
    score_numbers,
    verification,
    with_time_of_verification,
)
from .segmentation import segment_label, segment_numbers
from .source import SourceSeries

SERIES = 3
"""Last digit of its series number."""


def cardiovascular_report_of(
    result: ScoreResult, segmentation: Segmentation | None, source: SourceSeries, reader: str | None = None
) -> ComprehensiveSR:
    """Return the Cardiovascular Analysis Report of a result. Arguments as in `measurements_of`."""
    root = ContainerContentItem(cac.CARDIOVASCULAR_REPORT, template_id="3900")
    root.ContentSequence = ContentSequence()
    english = CodedConcept("en-US", "RFC5646", "English (United States)")
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(english))
    root.ContentSequence.extend(observation_context(source, reader))
    root.ContentSequence.append(
        CodeContentItem(codes.DCM.ProcedureReported, procedure(result), relationship_type="HAS CONCEPT MOD")
    )
    root.ContentSequence.append(_calcium_scoring(result, segmentation))
    root.ContentSequence.append(_summary(result))
    images = evaluated_images(result, source)
    report = ComprehensiveSR(
        evidence=[*images, *([] if segmentation is None else [segmentation])],
        content=root,
        is_complete=True,
        series_description="CAC: cardiovascular report",
        **verification(result, reader),
        **source.identity(SERIES, "cardiovascular"),
    )
    return with_time_of_verification(source.complete(report), result)


def _calcium_scoring(result: ScoreResult, segmentation: Segmentation | None) -> ContainerContentItem:
    container = ContainerContentItem(cac.CALCIUM_SCORING, template_id="3905", relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence()
    numbers = segment_numbers(segmentation)
    coronary = [g for g in score_groups(result) if not g.by_map and (g.site is None or isinstance(g.site, Artery))]
    for group in coronary:
        segment = None if group.site is None else numbers.get(segment_label(group.site))
        for name, value, unit, method in score_numbers(group):
            item = NumContentItem(name, value, unit, relationship_type="CONTAINS")
            item.ContentSequence = _place(group, method)
            if segmentation is not None and segment is not None and name == cac.CALCIUM_SCORE:
                item.ContentSequence.append(
                    ImageContentItem(
                        codes.DCM.ReferencedSegment,
                        segmentation.SOPClassUID,
                        segmentation.SOPInstanceUID,
                        referenced_segment_numbers=segment,
                        relationship_type="INFERRED FROM",
                    )
                )
            container.ContentSequence.append(item)
    return container


def _place(group: Group, method: Code | None) -> ContentSequence:
    items = ContentSequence()
    if method is not None:
        items.append(CodeContentItem(codes.SCT.MeasurementMethod, method, relationship_type="HAS CONCEPT MOD"))
    place = cac.CORONARY if group.site is None else cac.PLACES[group.site]
    items.append(CodeContentItem(codes.SCT.FindingSite, place, relationship_type="HAS CONCEPT MOD"))
    return items


def _summary(result: ScoreResult) -> ContainerContentItem:
    container = ContainerContentItem(codes.DCM.Summary, relationship_type="CONTAINS")
    container.ContentSequence = ContentSequence()
    status = cac.STATUS[result.methods["threshold"].status]
    container.ContentSequence.append(CodeContentItem(cac.REVIEW_STATUS, status, relationship_type="CONTAINS"))
    for sentence in conclusion(result):
        container.ContentSequence.append(TextContentItem(codes.DCM.Impression, sentence, relationship_type="CONTAINS"))
    return container

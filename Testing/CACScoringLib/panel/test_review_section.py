"""Tests of a reader's review."""

from dataclasses import replace

import automatic_patient
import heart_with_territories
import numpy as np
import panel_results
import pytest
import slicer

from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.labels import SITE_COLOURS, Artery, Labelled, NonCoronary
from CACScoringLib.mrml import scene as mrml
from desktop_host import events


@pytest.fixture
def reviewed(driver):
    driver.score(networks=True)
    return driver


def select(table, rows: list[int]) -> None:
    """Select rows as a user does with Ctrl held."""
    import qt

    table.setCurrentCell(rows[0], 0)
    for row in rows[1:]:
        flags = qt.QItemSelectionModel.Select | qt.QItemSelectionModel.Rows
        table.selectionModel().select(table.model().index(row, 0), flags)


@pytest.mark.main_window
class TestViews:
    @pytest.mark.long
    def test_keys_of_undo_in_the_list_and_in_the_views(self, reviewed):
        reviewed.assign("5–6", "RCA")
        reviewed.key("Ctrl+Z")
        assert "RCA" not in reviewed.scores()
        assert reviewed.widget.review.table.selected == [reviewed.current]
        view = slicer.app.layoutManager().sliceWidget("CACOriginal")
        events.key(view, "Ctrl+Y")
        assert reviewed.scores()["RCA"][0] == "324.0"
        events.key(view, "Ctrl+Z")
        assert "RCA" not in reviewed.scores()
        reviewed.widget.exit()
        events.key(view, "Ctrl+Shift+Z")
        assert "RCA" not in reviewed.scores(), "the keys are another module's"
        reviewed.widget.enter()

    def test_views_side_by_side(self, reviewed, panel):
        manager, nodes = slicer.app.layoutManager(), reviewed.review.nodes
        assert manager.layout == panel.views.LAYOUT_ID
        layers = {
            name: (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID(), node.GetForegroundOpacity())
            for name in ("CACOriginal", "CACMap")
            for node in [manager.sliceWidget(name).mrmlSliceCompositeNode()]
        }
        ct, healthy, calcium = (node.GetID() for node in (nodes.volume, nodes.healthy, nodes.calcium_map))
        assert layers == {
            "CACOriginal": (ct, healthy, 0.0),
            "CACMap": (ct, calcium, 1.0),
        }
        composite = manager.sliceWidget("CACOriginal").mrmlSliceCompositeNode()
        reviewed.ui.fadeSlider.setValue(0.5)
        assert composite.GetForegroundVolumeID() == healthy
        reviewed.ui.fadeSlider.setValue(0.25)
        other_views = [manager.sliceWidget(name).mrmlSliceCompositeNode() for name in ("CACMap", "CACCoronal")]
        assert [node.GetForegroundOpacity() for node in (composite, *other_views)] == [0.25, 1, 1]
        assert composite.GetLinkedControl()

    def test_nothing_is_changed_while_the_views_show_another_scan(self, reviewed, questions):
        questions.answer = "Confirm"
        volume = reviewed.review.nodes.volume
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Other")
        composite = slicer.app.layoutManager().sliceWidget("CACOriginal").mrmlSliceCompositeNode()
        reviewed.ui.methodBox.setCurrentIndex(0)
        slicer.util.setSliceViewerLayers(background=other)
        assert composite.GetBackgroundVolumeID() == other.GetID()
        reviewed.ui.reviewedBox.click()
        assert composite.GetBackgroundVolumeID() == volume.GetID()
        assert not reviewed.review.reviewed["threshold"]
        assert not reviewed.ui.reviewedBox.checked
        assert volume.GetName() in reviewed.ui.totalLabel.text
        reviewed.ui.reviewedBox.click()
        assert reviewed.review.reviewed["threshold"]

    def test_a_refused_key_leaves_the_selected_rows(self, reviewed):
        for rows in ([1], [0, 1]):
            select(reviewed.ui.lesionTable, rows)
            chosen = reviewed.widget.review.table.selected
            slicer.util.setSliceViewerLayers(background=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
            for button in ("LAD", "reject"):
                before = reviewed.lesions()
                reviewed.press_artery(button)
                assert reviewed.lesions() == before
                assert reviewed.widget.review.table.selected == chosen
                slicer.util.setSliceViewerLayers(
                    background=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
                )
            reviewed.widget.review._ensureScanShown()
            reviewed.press_artery("LM")
            listed = {row["No"]: row["Artery"] for row in reviewed.lesions()}
            assert {listed[number] for number in chosen} == {"LM"}, "the repeated key edits what was chosen"

    def test_a_refused_decision_leaves_method_and_row(self, reviewed, monkeypatch):
        reviewed.state.reviewMethod = "decomposition"
        reviewed.ui.lesionTable.setCurrentCell(1, 0)
        chosen = reviewed.current
        slicer.util.setSliceViewerLayers(background=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        reviewed.ui.headLabel.linkActivated.emit("1 2")
        reviewed.settle()
        assert reviewed.state.reviewMethod == "decomposition"
        assert reviewed.current == chosen
        assert reviewed.scores()["Total"] == reviewed.scores()["unassigned"]

    def test_a_change_that_fails_leaves_the_row(self, reviewed, monkeypatch):
        reviewed.ui.lesionTable.setCurrentCell(1, 0)
        chosen = reviewed.current

        def refused(*_args):
            raise MaskError("refused")

        monkeypatch.setattr(reviewed.review, "give", refused)
        reviewed.press_artery("LAD")
        assert reviewed.current == chosen
        assert reviewed.ui.totalLabel.text == "refused"

    @pytest.mark.parametrize("view", ["CACOriginal", "Red"])
    def test_going_to_a_lesion_shows_its_scan_in_any_layout(self, reviewed, view):
        manager, volume = slicer.app.layoutManager(), reviewed.review.nodes.volume
        if view == "Red":
            manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        layout = manager.layout
        slicer.util.setSliceViewerLayers(background=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        reviewed.key("Home")
        assert manager.sliceWidget(view).mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
        assert manager.layout == layout

    def test_no_key_acts_on_a_lesion_of_the_method_that_is_not_listed(self, reviewed):
        reviewed.key("Home")
        reviewed.assign("12–13", "RCA")  # selects the next
        assert reviewed.current is not None
        reviewed.state.reviewMethod = "decomposition"
        assert reviewed.widget.review.table.selected == []
        before = reviewed.scores()
        reviewed.key("4")
        assert reviewed.scores() == before
        assert reviewed.ui.lookedLabel.text == "Map: 0 of 2 looked at"
        assert reviewed.ui.acceptButton.text == "Confirm map"
        reviewed.key("Home")
        assert reviewed.ui.lookedLabel.text == "Map: 1 of 2 looked at", "nothing that the other list had selected"

    def test_undo_shows_the_changed_lesion(self, reviewed):
        reviewed.assign("5–6", "LAD")
        assigned = next(row["No"] for row in reviewed.lesions() if row["Slices"] == "5–6")
        reviewed.key("End")
        assert reviewed.current != assigned
        reviewed.key("Ctrl+Z")
        assert reviewed.current == assigned
        reviewed.state.reviewMethod = "decomposition"
        reviewed.key("Ctrl+Y")
        assert (reviewed.state.reviewMethod, reviewed.current) == ("threshold", assigned)

    def test_a_slice_of_another_scan_is_not_switched(self, reviewed):
        k = next(row.k for row in reviewed.review.slices() if row.decomposed)
        reviewed.choose_slice(k)
        assert reviewed.ui.sliceBox.enabled
        slicer.util.setSliceViewerLayers(background=slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
        view = slicer.app.layoutManager().sliceWidget("CACOriginal")
        view.mrmlSliceNode().Modified()
        assert not reviewed.ui.sliceBox.enabled
        reviewed.choose_slice(k)
        name = slicer.mrmlScene.GetNodeByID(view.mrmlSliceCompositeNode().GetBackgroundVolumeID()).GetName()
        assert name == reviewed.review.nodes.volume.GetName()
        assert reviewed.ui.sliceBox.enabled

    @pytest.mark.long
    def test_a_slice_without_map_is_scored_again(self, reviewed, panel, questions, monkeypatch):
        monkeypatch.setattr(panel, "ensurePackages", lambda requirements: "")
        questions.answer = "Confirm"
        reviewed.ui.methodBox.setCurrentIndex(0)
        reviewed.assign("12–13", "RCA")
        reviewed.ui.reviewedBox.click()
        before = reviewed.review
        reviewed.state.reviewMethod = "decomposition"
        slices = reviewed.lesions()[0]["Slices"]
        reviewed.assign(slices, "LCX")
        reviewed.ui.reviewedBox.click()
        reviewed.choose_slice(5)
        assert not reviewed.ui.sliceBox.checked
        reviewed.ui.sliceBox.click()
        questions.answer = ""
        reviewed.ui.rescoreButton.click()
        assert questions[-1].startswith("Score again: The score of the calcium map was confirmed. Its edits stay")
        questions.answer = "Score again"
        reviewed.begin(reviewed.ui.rescoreButton)
        assert reviewed.process.settings()["scoring"]["slices"] == {"5": True}
        reviewed.finish(networks=True)
        review = reviewed.review
        assert review is not before
        assert reviewed.scores()["RCA"][0] == "486.0", "the candidates' review is taken over"
        assert review.confirmations["threshold"] == before.confirmations["threshold"]
        assert {x.site for x in review.lesions("decomposition") if x.slice_range == slices} == {Artery.LCX}
        results = [x.result("decomposition").arteries[Artery.LCX] for x in (before, review)]
        assert results[0] == results[1]
        assert not review.reviewed["decomposition"], "further slices may add lesions"

    def test_scoring_a_confirmed_scan_again_asks_and_keeps_the_confirmed_result(self, driver, questions):
        driver.score()
        driver.ui.noCalciumButton.click()
        assert not driver.review.reviewed["threshold"]
        questions.answer = "Confirm 0"
        driver.ui.noCalciumButton.click()
        confirmed = driver.review
        questions.answer = ""
        driver.ui.scoreButton.click()
        assert questions[-1].startswith("Score again: The score of chest was confirmed.")
        assert not driver.widget.scorer.isRunning
        questions.answer = "Score again"
        driver.score()
        driver.score()
        names = [record.GetName() for record in mrml.records_in(slicer.mrmlScene)]
        assert names == [f"Calcium score of chest{number}" for number in ("", " (2)", " (3)")]
        assert len(questions) == 4, "the second result is not confirmed"
        driver.ui.resultSelector.setCurrentNode(confirmed.nodes.record)
        assert driver.review.reviewed["threshold"]


class TestReview:
    def test_a_lesion_moves_out_of_the_arteries_and_back(self, reviewed):
        table = reviewed.ui.nonCoronaryTable
        reviewed.ui.moreButton.collapsed = False
        assert not table.isVisibleTo(table.parent())
        reviewed.assign("12–13", "aortic valve")
        assert reviewed.scores()["Total"][0] == "972.0"
        assert "aortic valve" in [lesion["Artery"] for lesion in reviewed.lesions()]
        assert table.isVisibleTo(table.parent())
        assert [table.item(0, n).text() for n in range(3)] == ["aortic valve and root", "486.0", "486.0"]
        assert table.rowCount == 1
        reviewed.assign("12–13", "LM")
        assert reviewed.scores()["Total"][0] == "1,458.0"
        assert not table.isVisibleTo(table.parent())
        reviewed.ui.undoButton.click()
        assert table.isVisibleTo(table.parent())

    def test_painting_counts_at_once(self, reviewed):
        nodes, paint = reviewed.review.nodes, slicer.util.updateSegmentBinaryLabelmapFromArray
        labels = np.zeros((20, 64, 64), np.uint8)
        labels[12:14, 26:29, 40:43] = 1
        paint(labels, nodes.calcium, "LCX", nodes.volume)
        reviewed.settle()
        # The voxels are in two segments now, so no score is shown.
        assert "belong to two segments" in reviewed.ui.totalLabel.text
        paint(labels * 0, nodes.calcium, "unassigned", nodes.volume)
        reviewed.settle()
        assert reviewed.scores()["Total"][0] == reviewed.scores()["LCX"][0] == "486.0"

    def test_undo_in_slicers_own_editor_is_followed(self, reviewed):
        history = slicer.vtkSegmentationHistory()
        history.SetSegmentation(reviewed.review.nodes.calcium.GetSegmentation())
        history.SaveState()
        reviewed.assign("16–17", "reject")
        assert reviewed.scores()["Total"][0] == "810.0"
        assert history.RestorePreviousState()
        reviewed.settle()
        assert reviewed.scores()["Total"][0] == "1,458.0"

    def test_a_node_of_the_result_is_removed(self, reviewed):
        slicer.mrmlScene.RemoveNode(reviewed.review.nodes.calcium)
        assert reviewed.review is None
        assert reviewed.lesions() == []


class TestSuggestedSites:
    @pytest.fixture
    def by_territory(self, driver, monkeypatch, tmp_path):
        """A result whose lowest lesion lies in the aortic valve's territory, the others in the LAD's."""
        places = {"aortic valve and root": np.s_[0:9, :, :], "LAD": np.s_[9:, :, :]}
        heart_mask = panel_results.heart_mask

        def find_heart(scan, *_):
            return heart_with_territories.region_of(scan.image, places, heart_mask(scan.image))

        monkeypatch.setattr("CACScoringLib.anatomy.heart_search.find_heart", find_heart)
        monkeypatch.setattr(panel_results, "heart_mask", lambda image: None)
        panel_results.write(tmp_path / "result", panel_results.chest_image(), networks=False)
        driver.score(folder=tmp_path / "result")
        return driver

    def test_carry_a_question_mark_until_a_reader_decides(self, by_territory):
        def sites() -> dict[str, str]:
            return {lesion["Slices"]: lesion["Artery"] for lesion in by_territory.lesions()}

        assert sites() == {"5–6": "aortic valve?", "12–13": "LAD?", "16–17": "LAD?"}
        by_territory.assign("12–13", "LCX")
        assert sites() == {"5–6": "aortic valve?", "12–13": "LCX", "16–17": "LAD?"}
        by_territory.assign("16–17", "LAD")
        assert sites()["16–17"] == "LAD", "the reader has decided, too"
        by_territory.ui.undoButton.click()
        assert sites() == {"5–6": "aortic valve?", "12–13": "LCX", "16–17": "LAD?"}
        by_territory.ui.redoButton.click()
        assert sites()["16–17"] == "LAD"
        by_territory.ui.undoButton.click()
        by_territory.ui.lesionTable.selectAll()
        by_territory.press_artery("LAD")
        assert set(sites().values()) == {"LAD"}, "those that move and those that stay"
        by_territory.ui.undoButton.click()
        by_territory.ui.reviewedBox.click()
        assert sites() == {"5–6": "aortic valve", "12–13": "LCX", "16–17": "LAD"}

    def test_columns_of_features_are_shown_from_the_headers_menu(self, by_territory):
        import qt

        from CACScoringLib.panel.lesion_table import LesionTableView

        table = by_territory.ui.lesionTable

        def titles() -> list[str]:
            columns = [n for n in range(table.columnCount) if not table.isColumnHidden(n)]
            return [table.horizontalHeaderItem(n).text().replace("\n", " ") for n in columns]

        header, before = table.horizontalHeader(), titles()
        assert header.contextMenuPolicy == qt.Qt.ActionsContextMenu
        assert before == ["No", "Artery", "Agatston", "mm³", "HU", "Slices"]
        assert {row["Median HU"] for row in by_territory.lesions()} == {""}
        actions = {action.text: action for action in header.actions()}
        actions["Median HU"].trigger()
        actions["Number of slices"].trigger()
        assert titles() == [*before, "Median HU", "Slice count"]
        assert LesionTableView(qt.QTableWidget()).features == ["median_hu", "slices"], "the choice is remembered"
        rows = {row["Slices"]: row for row in by_territory.lesions()}
        assert [rows["12–13"][title] for title in ("Slice count", "Median HU")] == [2, 350]
        assert rows["5–6"]["Median HU"] == "", "outside the arteries"
        by_territory.assign("16–17", "aortic valve")
        rows = {row["Slices"]: row for row in by_territory.lesions()}
        assert rows["12–13"]["Nearest mm"] == "", "the only lesion left"
        actions["Number of slices"].trigger()
        assert titles() == [*before, "Median HU"]


@pytest.fixture(scope="module")
def automatic_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("review") / "automatic"
    automatic_patient.write(folder)
    return folder


class TestAutomaticScore:
    @pytest.fixture
    def volume(self, panel):
        return mrml.add_volume(slicer.mrmlScene, automatic_patient.image(), "automatic")

    @pytest.fixture
    def automatic(self, driver, automatic_folder):
        driver.score(folder=automatic_folder)
        return driver

    def counted(self, driver) -> list[dict]:
        return [row for row in driver.lesions() if not row["Artery"].endswith(" out")]

    def test_lists_counted_lesions_first_by_impact(self, automatic):
        rows = automatic.lesions()
        out = [row["Artery"].endswith(" out") for row in rows]
        assert out == [False] * 9 + [True] * 6
        changes = [
            row["Agatston"] * (row["Prob. %"] if o else 100 - row["Prob. %"]) for row, o in zip(rows, out, strict=True)
        ]
        assert changes[:9] == sorted(changes[:9], reverse=True)
        assert changes[9:] == sorted(changes[9:], reverse=True)
        assert {row["Artery"] for row in rows[9:]} == {"LAD? out", "LCX? out", "RCA? out"}
        table = automatic.ui.lesionTable
        assert all(SITE_COLOURS[Artery.UNASSIGNED] in automatic.widget.review.plot._colours[k] for k in (5, 9))
        assert table.item(9, 1).foreground().color() != table.item(8, 1).foreground().color()

    def test_the_deciding_lesion_is_counted_or_rejected(self, automatic):
        ui, review = automatic.ui, automatic.review
        for number in (1, 2, 4, 5):
            ui.lesionTable.setCurrentCell([row["No"] for row in automatic.lesions()].index(number), 0)
            automatic.key("X")
        assert automatic.lesions()[0]["No"] == review.result("threshold").alternative_lesion == 7
        assert "Agatston 2,916 or 2,268" in ui.headLabel.text
        automatic.state.reviewMethod = "decomposition"
        ui.headLabel.linkActivated.emit("7 3")
        assert automatic.state.reviewMethod == "threshold", "the list of the clinical score"
        assert ">Agatston 2,916<" in ui.headLabel.text, "decided"
        automatic.ui.undoButton.click()
        ui.headLabel.linkActivated.emit("7 0")
        assert review.result("threshold").total.agatston == 2268

    def test_a_key_counts_a_left_out_lesion_and_selects_the_next(self, automatic):
        left_out = automatic.lesions()[9]
        automatic.ui.lesionTable.setCurrentCell(9, 0)
        automatic.key("3")
        assert len(self.counted(automatic)) == 10
        assigned = next(row for row in automatic.lesions() if row["No"] == left_out["No"])
        assert (assigned["Artery"], assigned["Prob. %"]) == ("LCX", left_out["Prob. %"])
        assert automatic.ui.lesionTable.currentRow() == 10
        automatic.key("X")
        assert len(automatic.lesions()) == 14
        assert automatic.ui.lesionTable.currentRow() == 10

    def test_home_and_end_go_to_the_first_and_the_last_lesion(self, automatic):
        rows = automatic.lesions()
        automatic.ui.lesionTable.setCurrentCell(4, 3)
        for key, row in (("End", 14), ("Home", 0)):
            automatic.key(key)
            assert (automatic.current, automatic.widget.review.table.selected) == (rows[row]["No"], [rows[row]["No"]])

    def test_a_key_accepts_all_and_undo_reopens_the_review(self, automatic):
        before, ui = automatic.scores(), automatic.ui
        ui.lesionTable.setCurrentCell(0, 0)
        automatic.key("A")
        assert ui.reviewedBox.checked
        assert automatic.scores()["Total"] == before["Total"]
        assert "Category 400+" in ui.headLabel.text
        assert "automatic" not in ui.headLabel.text.replace("<b>automatic</b>", "") + ui.warningsLabel.text
        assert [row["Artery"].endswith(" out") for row in automatic.lesions()] == [False] * 9 + [True] * 6
        ui.undoButton.click()
        assert not ui.reviewedBox.checked

    def test_lesions_that_the_program_chose_are_not_looked_at(self, automatic):
        ui, rows = automatic.ui, automatic.lesions()
        automatic.widget.review.showSideBySide()
        assert automatic.current == rows[0]["No"]
        assert (len(rows), ui.lookedLabel.text) == (15, "0 of 15 looked at")
        automatic.key("2")
        assert automatic.current == rows[1]["No"]
        assert ui.lookedLabel.text == "1 of 15 looked at", "the one that the reader assigned"
        ui.lesionTable.setCurrentCell(2, 0)
        assert ui.lookedLabel.text == "3 of 15 looked at", "the assignment led to it, and the reader went on from it"

    def test_confirming_with_lesions_not_looked_at_asks_first(self, automatic, questions):
        ui = automatic.ui
        automatic.state.exportReader = "Reader^Rita"
        ui.lesionTable.setCurrentCell(1, 0)
        ui.reviewedBox.click()
        automatic.settle()
        (question,) = questions
        text = "Candidates looked at: 1 of 15. Never shown: 14. The record will say so."
        assert question == f"Confirm the score: {text} [] [Confirm]"
        assert not automatic.review.reviewed["threshold"]
        assert not ui.reviewedBox.checked
        questions.answer = "Confirm"
        automatic.key("A")
        assert automatic.review.confirmations["threshold"].reader == "Reader^Rita"
        assert "reviewed by Reader Rita, 1 of 15 candidates looked at" in ui.headLabel.text
        ui.reviewedBox.click()
        assert len(questions) == 2, "it is reopened without a question"
        assert not automatic.review.reviewed["threshold"]

    def test_a_result_names_the_reader_who_confirmed_it_whatever_is_typed_later(
        self, automatic, questions, monkeypatch, tmp_path
    ):
        automatic.state.exportReader, questions.answer = "Rita", "Confirm"
        automatic.ui.lesionTable.setCurrentCell(1, 0)
        automatic.key("A")
        automatic.state.exportReader = "Quentin"
        automatic.widget.result.update()
        monkeypatch.setattr("CACScoringLib.panel.widgets.askForFolder", lambda _title: str(tmp_path))
        automatic.ui.exportButton.click()
        page = (tmp_path / "automatic-cac" / "report.html").read_text(encoding="utf-8")
        for text in (automatic.ui.headLabel.text, page):
            assert "reviewed by Rita" in text
            assert "Quentin" not in text

    def test_an_edit_in_slicers_own_editor_is_of_the_reader_at_the_panel(self, automatic, questions):
        automatic.state.exportReader, questions.answer = "Rita", "Confirm"
        automatic.ui.lesionTable.setCurrentCell(1, 0)
        automatic.key("A")
        automatic.state.exportReader = "Ann"
        review = automatic.review
        flat = review.review("threshold").flat_voxels([review.lesions("threshold")[0].id])
        review._state.write("threshold", Labelled(flat, np.full(len(flat), int(Artery.RCA), np.uint8)))
        automatic.widget.review._refresh()
        assert review.confirmations["threshold"].reader == "Ann"

    def test_no_coronary_calcium_asks_what_it_rejects_and_how_much_was_never_in_view(self, automatic, questions):
        ui, review = automatic.ui, automatic.review
        ui.noCalciumButton.click()
        assert "Never shown: 15." in questions[-1]
        for row in range(1, len(automatic.lesions())):
            ui.lesionTable.setCurrentCell(row, 0)
        ui.noCalciumButton.click()
        assert questions[-1].startswith("No coronary calcium: This discards the score of 5,508, rejects its ")
        assert "candidates (15) and confirms 0. Candidates looked at: " in questions[-1]
        assert "Never shown: 1." in questions[-1], "even for a single one"
        of_map = review.result("decomposition").total.clinical_agatston
        assert f"The calcium map's score of {of_map:,.0f} goes, too." in questions[-1]
        assert not any(review.reviewed.values())
        questions.answer = "Confirm 0"
        ui.noCalciumButton.click()
        assert review.reviewed["threshold"]
        assert not review.reviewed["decomposition"], "the map was hidden"
        assert review.result("decomposition").total.agatston == 0
        assert review.result("threshold").total.agatston == 0

    def test_sites_outside_the_arteries_have_their_own_line(self, automatic):
        review = automatic.review
        lesions = review.review("threshold")
        lesion = review.lesions("threshold")[0].id
        flat = lesions.flat_voxels([lesion])
        valve = np.full(len(flat), NonCoronary.AORTIC_VALVE, np.uint8)
        review.give_all("threshold", lesions.labelled.with_labels(flat, valve))
        review.look_at("threshold", review.unseen_candidates("threshold") - {lesion})
        automatic.widget.review.update()
        automatic.ui.acceptButton.click()
        confirmation = review.confirmations["threshold"]
        assert (confirmation.outside, confirmation.outside_unseen) == (1, 1)
        assert confirmation.in_words.endswith("Outside the arteries: 0 of 1 looked at.")

    def test_a_confirmed_score_is_confirmed_again_by_the_same_button(self, automatic):
        ui, review = automatic.ui, automatic.review
        ui.lesionTable.setCurrentCell(1, 0)
        automatic.key("A")
        before = review.confirmations["threshold"]
        assert (ui.acceptButton.text, ui.acceptButton.enabled) == ("Confirm again", True)
        assert not ui.doubtfulButton.visible
        assert not ui.totalLabel.visible
        ui.lesionTable.setCurrentCell(4, 0)
        assert "looked at more lesions" in ui.totalLabel.text
        automatic.key("A")
        after = review.confirmations["threshold"]
        assert set(after.not_looked_at) < set(before.not_looked_at)
        assert not ui.totalLabel.visible

    @pytest.fixture
    def decided_elsewhere(self, driver, tmp_path):
        """Opens a result of a number of lesions in which a doubtful one of the aortic valve decides."""

        def opened(counted: int):
            automatic_patient.write_elsewhere(tmp_path / "elsewhere", counted)
            driver.score(folder=tmp_path / "elsewhere")
            return driver

        return opened

    def test_the_deciding_lesion_outside_the_arteries_is_looked_at_before_a_confirmation(
        self, decided_elsewhere, questions
    ):
        driver = decided_elsewhere(counted=1)
        number = driver.review.result("threshold").alternative_lesion
        assert driver.lesions()[0]["No"] == number
        site = next(x.site for x in driver.review.lesions("threshold") if x.id == number)
        assert site == NonCoronary.AORTIC_VALVE
        for row in range(1, len(driver.lesions())):
            driver.ui.lesionTable.setCurrentCell(row, 0)
        driver.ui.acceptButton.click()
        assert questions[-1].startswith(f"Confirm the score: Lesion {number} decides the score.")
        assert "Never shown: 1." in questions[-1]
        assert questions[-1].endswith("[Show it] [Confirm]")
        assert not driver.review.reviewed["threshold"]
        questions.answer = "Show it"
        driver.ui.acceptButton.click()
        assert driver.current == number
        assert "All candidates looked at" in driver.ui.totalLabel.text
        driver.ui.acceptButton.click()
        assert driver.review.reviewed["threshold"]
        assert len(questions) == 2

    def test_a_zero_beside_a_candidate_outside_the_arteries_is_not_confirmed_unseen(self, decided_elsewhere, questions):
        driver = decided_elsewhere(counted=0)
        assert driver.review.result("threshold").total.agatston == 0
        assert driver.ui.lookedLabel.text == "0 of 1 looked at"
        assert not driver.ui.totalLabel.visible
        driver.key("A")
        assert "Never shown: 1." in questions[-1]
        assert not driver.review.reviewed["threshold"]
        driver.ui.noCalciumButton.click()
        driver.key("Home")
        driver.key("A")
        assert driver.review.reviewed["threshold"]

    def test_a_reader_who_has_viewed_all_lesions_is_asked_to_confirm(self, automatic):
        ui, rows = automatic.ui, automatic.lesions()
        left_out = [row["Artery"].endswith(" out") for row in rows]
        shares = [row["Prob. %"] for row in rows]
        is_doubtful = [p > 10 if out else p < 90 for p, out in zip(shares, left_out, strict=True)]
        doubtful = [row["No"] for row, doubt in zip(rows, is_doubtful, strict=True) if doubt]
        assert doubtful
        assert ui.doubtfulButton.text == f"Doubtful ({len(doubtful)})"
        ui.lesionTable.setCurrentCell(len(rows) - 1, 0)
        for expected in doubtful:
            automatic.key("N")
            assert automatic.current == expected
        for row in range(len(rows)):
            ui.lesionTable.setCurrentCell(row, 0)
        assert ui.lookedLabel.text == "15 of 15 looked at"
        automatic.key("A")
        assert not ui.totalLabel.visible


def test_lesions_in_the_heart_are_listed_before_others(driver):
    """List candidates without a probability from where a reader looks first."""
    driver.score()
    assert [lesion["Slices"] for lesion in driver.lesions()] == ["16–17", "12–13", "5–6"], "from head to feet"
    review = driver.review.review("threshold")
    heart = review.facts.region.mask.copy()
    heart[10:] = False
    review.facts = replace(review.facts, region=replace(review.facts.region, mask=heart))
    driver.widget.review.update()
    assert [lesion["Slices"] for lesion in driver.lesions()] == ["5–6", "16–17", "12–13"]


def test_the_default_of_a_question_is_to_cancel(panel, monkeypatch):
    import qt

    from CACScoringLib.panel.widgets import askBefore, singleShot

    defaults = []

    def press(pressed):
        box = qt.QApplication.activeModalWidget()
        buttons = {button.text.replace("&", ""): button for button in box.buttons()}
        defaults.extend(text for text, button in buttons.items() if button.default)
        buttons[pressed].click()

    assert askBefore("Confirm the score", "Lesion 3 decides the score.", "Confirm") == "Confirm", "in testing"
    monkeypatch.setattr(slicer.app, "_testing", False)
    for pressed, answer in (("Show it", "Show it"), ("Confirm", "Confirm"), ("Cancel", "")):
        timer = singleShot(50, lambda pressed=pressed: press(pressed))
        timer.start()
        assert askBefore("Confirm the score", "Lesion 3 decides the score.", "Confirm", "Show it") == answer
    assert defaults == ["Cancel"] * 3

"""Memory of a panel and its views is freed when the desktop closes them."""

import gc
import weakref

import pytest
import slicer
import vtk
from training_driver import load_training

import desktop_host


@pytest.mark.long
def test_nothing_large_outlives_the_panel():
    """The objects are freed without Python's garbage collector."""
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            load_training(patch)
            import qt

            panel = weakref.ref(desktop_host.open_panel("CACTraining"))
            scene = vtk.vtkWeakReference()  # the host keeps render windows for the next desktop
            scene.Set(slicer.mrmlScene)
            assert scene.Get() is slicer.mrmlScene
            desktop_host.close_panel("CACTraining")
        assert scene.Get() is None
        assert panel() is None
        assert not qt.QApplication.allWidgets()
    finally:
        gc.enable()

"""Scenes written to disk and read into a fresh one, as closing and opening Slicer does."""

from pathlib import Path

import slicer


def read_mrb(path: Path, cache: Path) -> slicer.vtkMRMLScene:
    """Read an .mrb into a fresh scene. cache: a folder for its files. The scene keeps alive what reads it."""
    scene = _fresh_scene(cache)
    assert scene.ReadFromMRB(str(path), True)
    return scene


def write_mrml(scene: slicer.vtkMRMLScene, folder: Path) -> Path:
    """Write a scene as .mrml with its data beside it; returns the .mrml."""
    folder.mkdir()
    assert scene.SaveSceneToSlicerDataBundleDirectory(str(folder), None)
    (path,) = folder.glob("*.mrml")
    return path


def read_mrml(path: Path, cache: Path) -> slicer.vtkMRMLScene:
    """Read an .mrml into a fresh scene."""
    scene = _fresh_scene(cache)
    scene.SetURL(str(path))
    assert scene.Connect()
    return scene


def _fresh_scene(cache: Path) -> slicer.vtkMRMLScene:
    slicer.vtkSlicerSegmentationsModuleLogic()
    scene, application = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application)
    cache.mkdir(exist_ok=True)
    remote.GetCacheManager().SetRemoteCacheDirectory(str(cache))
    manager.SetMRMLApplicationLogic(application)
    manager.SetMRMLScene(scene)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    scene.keep_alive = (application, remote, manager)
    return scene

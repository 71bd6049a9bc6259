"""Digital patients whose coronary calcium is known, scanned by a simulated CT.

Coordinates are millimetres in LPS order: x to the patient's left, y to posterior, z to superior. Arrays are
[k, j, i]. Physics: calcium as point masses, the response of a moving point in filtered back-projection, the slice
profile, the noise spectrum and its dependence on the body's attenuation, the calcium's HU per tube voltage.
Shape: everything of the anatomy, the plaques' places and sizes, the trajectories, and the streaks of metal.
"""

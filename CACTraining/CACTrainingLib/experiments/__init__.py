"""Engine of studies with many trainings: configurations, budget, folds, resume and results."""

"""One engine for studies of many trainings: configurations, budget, folds, resume, results and plots."""

"""Training, studies, digital patients and annotation projects, without Qt: a room per capability."""

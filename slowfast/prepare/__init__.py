"""Collections made ready for training: videos that read fast, frames of videos, events of recordings or videos."""

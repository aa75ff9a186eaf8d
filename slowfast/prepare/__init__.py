"""Preparation of collections: videos that read fast, frames of videos, events of recordings or videos."""

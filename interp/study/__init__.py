"""The main job: ``stations`` says what a stop of it is, ``analysis`` runs them over a model."""

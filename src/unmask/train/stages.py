"""Which stage runs a recipe."""

from unmask.config import DenoiseRecipe, InitRecipe, Recipe
from unmask.train.loop import Stage
from unmask.workers import Workers


def make_stage(recipe: Recipe, workers: Workers) -> Stage:
    """The stage for a recipe, its models loaded or made.

    Raises:
        ValueError: for models or tasks that cannot be loaded.
    """
    if isinstance(recipe, DenoiseRecipe):
        from unmask.train.denoise import DenoiseStage

        return DenoiseStage(recipe, workers)
    if isinstance(recipe, InitRecipe):
        from unmask.train.planner_init import InitStage

        return InitStage(recipe, workers)
    from unmask.train.grpo_stage import GrpoStage

    return GrpoStage(recipe, workers)

"""Which stage runs a recipe."""

from unmask.config import DenoiseRecipe, GrpoRecipe, InitRecipe, Recipe
from unmask.train.loop import Stage
from unmask.workers import Workers


def make_stage(recipe: Recipe, workers: Workers) -> Stage:
    """The stage for a recipe, its models loaded or made.

    Raises:
        ValueError: for models or tasks that cannot be loaded, and more processes than there is to share.
    """
    name = "prompts" if isinstance(recipe, GrpoRecipe) else "batch_size"
    if getattr(recipe, name) < workers.size:
        raise ValueError(
            f"{workers.size} processes cannot share {name} {getattr(recipe, name)}; "
            f"start fewer, or give {name}={workers.size} or more"
        )
    if isinstance(recipe, DenoiseRecipe):
        from unmask.train.denoise import DenoiseStage

        return DenoiseStage(recipe, workers)
    if isinstance(recipe, InitRecipe):
        from unmask.train.planner_init import InitStage

        return InitStage(recipe, workers)
    from unmask.train.grpo_stage import GrpoStage

    return GrpoStage(recipe, workers)

"""Pre-train the base on the town's styles: python -m lora_mini.world.make_base

Without arguments it makes the file that ships with the package, in about a minute on two cores.
With `--styles plain --out narrow.safetensors` it makes a base that has read a single style.
"""

import argparse
import random
import shlex
import sys
import time
from dataclasses import dataclass, replace

import torch

from lora_mini.world import measure, memory, text, town, train
from lora_mini.world.base import COMMAND, base_path, save_base
from lora_mini.world.gpt import GPT, Config
from lora_mini.world.styles import ANY, STYLES, under


@dataclass(frozen=True)
class Recipe:
    """The size of a base and how long it reads."""

    config: Config
    steps: int
    rate: float
    size: int  # sentences a step
    warmup: int = 100


V = len(text.VOCABULARY)
RECIPES = {
    "laptop": Recipe(Config(V, end=text.END), 1200, 5e-3, 64),
    "gpu": Recipe(Config(V, d_model=256, layers=4, heads=8, end=text.END), 2000, 1e-3, 128),
}


def make_base(preset="laptop", styles=tuple(STYLES), seed=0, device=None, steps=None, width=None,
              **options):
    """Pre-train a GPT from fresh weights on new sentences of these styles: (model, History).

    Half of the sentences are read under the tag ANY. styles: names out of STYLES. steps: instead
    of the recipe's. width: another d_model than the recipe's; the rate falls as it grows.
    options: for `train.fit`.
    On "gpu" the ledger's count is printed first. Raises ValueError for a style that there isn't,
    MemoryError where the device has less left than the ledger counts.
    """
    if unknown := set(styles) - STYLES.keys():
        raise ValueError(f"styles must be among {', '.join(STYLES)}, got {', '.join(unknown)}")
    recipe = RECIPES[preset]
    config = replace(recipe.config, d_model=width or recipe.config.d_model)
    torch.manual_seed(seed)
    model = GPT(config).to(train.device() if device is None else device)
    read = [STYLES[name] for name in styles]
    batches = train.fresh([*read, *(under(style, ANY) for style in read)], recipe.size)
    if preset == "gpu":
        batch = batches(random.Random(seed))

        def act(double):
            with train.precision(double):
                return train.loss(double, batch.tokens, batch.mask)
        print(f"By the ledger: {memory.check(model, act)}.")
    history = train.fit(model, batches, steps=steps or recipe.steps,
                        rate=recipe.rate * recipe.config.d_model / config.d_model,
                        warmup=recipe.warmup, seed=seed, **options)
    return model.eval(), history


def main(arguments=None):
    """The command."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Pre-train the base of the course.")
    parser.add_argument("--preset", choices=RECIPES, default="laptop", help="its size")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES),
                        metavar="STYLE", help="what it reads (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--out", help="the file (default: where the notebooks look for it)")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    if not options.out and (options.steps or len(options.styles) < len(STYLES)):
        parser.error("a base of other styles or steps must not take the place of the course's own: "
                     "say --out FILE")
    out = options.out or base_path(options.preset)
    start = time.perf_counter()
    model, history = make_base(options.preset, options.styles, options.seed, steps=options.steps)
    if not history.whole:
        parser.exit(1, f"interrupted after {len(history.losses)} steps; nothing was written\n")
    seconds = time.perf_counter() - start
    command = shlex.join([*COMMAND.split(), *arguments])
    save_base(model, out, command=command, seed=options.seed, styles=" ".join(options.styles))
    read = [STYLES[name] for name in options.styles]
    score, floor = measure.evaluate(model, read, n=1200, seed=1), town.entropy(read)
    print(f"{out}: {seconds:.0f} s; on test frames {score.total:.4f} nats per token "
          f"({score.total / floor:.1%}) over the floor of {floor:.4f}, valid {score.valid:.3f}")


if __name__ == "__main__":
    main()

"""Teaching a real chat model from pairs of question and answer: encode, fit, measure, let it speak.

Only the answer counts in the loss, its end included. No example is cut: one that is too long is
refused, by name. A plain text is taught as it runs, in windows, and every token counts.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

import lora_mini as lm
from lora_mini.world import memory, train

IGNORED = -100  # what cross-entropy leaves out
MOST = 128  # tokens of an answer


def encode(tokenizer, question, answer, system=None, most=512):
    """(tokens, labels) of one pair, two lists; the labels of the prompt are IGNORED.

    Raises ValueError for more than `most` tokens, or an empty answer.
    """
    if not answer.strip():
        raise ValueError(f"the answer to {question[:40]!r} is empty: there is nothing to learn")
    start = prompt(tokenizer, question, system)
    said = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False).input_ids
    if len(start) + len(said) > most:
        raise ValueError(f"the pair that begins {question[:40]!r} has {len(start) + len(said)} "
                         f"tokens, at most {most} fit: shorten it; nothing is cut off silently")
    return start + said, [IGNORED] * len(start) + said


def read(path):
    """What a file of the reader's holds: a list of (question, answer) where every line has one tab,
    the text itself where none has. Empty lines are passed over; in a pair \\n is a line break.

    Raises ValueError, with the line's number, where only some lines are pairs; for an empty file.
    """
    text = Path(path).read_text("utf-8-sig")
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} is empty: there is nothing to learn")
    if not any("\t" in line for _, line in lines):
        return text
    for n, line in lines:
        if line.count("\t") != 1 or not all(part.strip() for part in line.split("\t")):
            raise ValueError(f"{path}, line {n}: expected a question, one tab and an answer, as "
                             f"other lines are pairs, got {line[:40]!r}")
    return [tuple(part.strip().replace("\\n", "\n") for part in line.split("\t"))
            for _, line in lines]


def own(tokenizer, path):
    """A reader's file, made ready: (rows to train on, rows held back, held-back pairs, of a plain
    text []). Prints what it was read as; raises as `read`, `encode` and `apart` do."""
    found = read(path)
    if isinstance(found, str):
        rows = plain(tokenizer, found)
        print(f"read as plain text, {len(rows)} windows")
        return *apart(rows), []
    print(f"read as {len(found)} pairs")
    taught, held = apart(found)
    return *([encode(tokenizer, *pair) for pair in part] for part in (taught, held)), held


def apart(items):
    """(taught, held back) of rows or pairs: every fifth is held back, to judge by. Raises
    ValueError for fewer than five."""
    if len(items) < 5:
        raise ValueError("every fifth pair or window is held back, to judge by: expected five of "
                         f"them or more, got {len(items)}")
    return [item for i, item in enumerate(items, 1) if i % 5], items[4::5]


def plain(tokenizer, text, window=128):
    """Rows of a text as it runs, its end included: in each window all tokens count, and it begins
    with the last token of the one before. So all but the text's first are predicted, once each.
    """
    if window < 2:
        raise ValueError(f"a window must hold 2 tokens or more, got {window}")
    ids = tokenizer(text.strip() + tokenizer.eos_token, add_special_tokens=False).input_ids
    starts = range(0, len(ids) - 1, window - 1)
    return [(ids[i:i + window], ids[i:i + window]) for i in starts]


def prompt(tokenizer, question, system=None, before=()):
    """The tokens that the model reads before it answers; before: pairs as examples in the prompt.
    """
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answered in before:
        messages += [{"role": "user", "content": asked},
                     {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": question})
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return tokenizer(text, add_special_tokens=False).input_ids


def replayed(model, tokenizer, questions):
    """Rows of questions and the model's own answers to them: against forgetting, made before it is
    trained and mixed among the examples. An answer that did not end within MOST tokens is left out:
    its row would teach an end where there was none."""
    prompts, ended = [prompt(tokenizer, question) for question in questions], []
    said = answers(model, tokenizer, prompts, ended=ended)
    return [encode(tokenizer, question, answer) for question, answer, whole in
            zip(questions, said, ended, strict=True) if whole]


def masked(rows):
    """The share of tokens that do not count in the loss."""
    labels = [label for _, found in rows for label in found]
    return labels.count(IGNORED) / len(labels)


def padded(rows, pad=0, device=None):
    """A batch for a Hugging Face model: tokens and labels (B, T), the mask of what is no padding.
    """
    T = max(len(tokens) for tokens, _ in rows)
    tokens = torch.tensor([t + [pad] * (T - len(t)) for t, _ in rows])
    labels = torch.tensor([found + [IGNORED] * (T - len(found)) for _, found in rows])
    there = torch.tensor([[1] * len(t) + [0] * (T - len(t)) for t, _ in rows])
    batch = {"input_ids": tokens, "labels": labels, "attention_mask": there}
    return {name: t.to(device) for name, t in batch.items()}


@dataclass
class Lesson:
    """What a run of `fit` went through: the loss of each step, and whether it was interrupted."""

    losses: list = field(default_factory=list)
    whole: bool = True


def fit(model, rows, rate, *, epochs=2, size=4, seed=0, clip=1.0, progress=None):
    """Train what is trainable in `model` on rows of `encode` with AdamW: a Lesson.

    The rate rises over the first tenth of the steps and falls to zero at the last. Raises
    FloatingPointError when the loss is no finite number, MemoryError, with advice, when the
    device's memory is full; Ctrl+C ends the run, the Lesson says so.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    rng, lesson, mode = random.Random(seed), Lesson(), model.training
    torch.manual_seed(seed)
    order = [row for _ in range(epochs) for row in rng.sample(rows, len(rows))]
    batches = [order[i:i + size] for i in range(0, len(order), size)]
    warmup = max(1, len(batches) // 10)
    model.train()
    try:
        with memory.advice(model):
            for step in train.bar(len(batches), progress):
                for group in optimizer.param_groups:
                    group["lr"] = train.rate_at(step, len(batches), rate, warmup)
                loss = nats(model, batches[step])
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower "
                                             f"the rate, {rate:g}")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, clip)
                optimizer.step()
                lesson.losses.append(loss.item())
    except KeyboardInterrupt:
        lesson.whole = False
    finally:
        model.train(mode)
    return lesson


def nats(model, rows, total=False):
    """The loss of a batch of rows, nats a counted token; with `total` the sum, and their number.

    The head is applied only where a label counts: with 49,152 words it is a large part of a step.
    """
    batch = padded(rows, device=model.device)
    hidden = model.model(batch["input_ids"], attention_mask=batch["attention_mask"])[0][:, :-1]
    labels = batch["labels"][:, 1:]
    counts = labels != IGNORED
    each = F.cross_entropy(model.lm_head(hidden[counts]).float(), labels[counts], reduction="none")
    return (each.sum(), each.numel()) if total else each.mean()


@torch.no_grad()
def held_out(model, rows, size=8):
    """Nats a counted token over all rows, in eval mode."""
    mode = model.training
    model.eval()
    found = [nats(model, rows[i:i + size], total=True) for i in range(0, len(rows), size)]
    model.train(mode)
    return sum(some.item() for some, _ in found) / sum(n for _, n in found)


@torch.no_grad()
def answers(model, tokenizer, prompts, most=MOST, ended=None):
    """Greedy answers, all prompts in one batch: a list of texts.

    A list given as `ended` gets, for each, whether it came to its own end within `most` tokens.
    """
    mode, T = model.training, max(map(len, prompts))
    model.eval()
    tokens = torch.tensor([[0] * (T - len(p)) + p for p in prompts])  # padded on the left
    there = torch.tensor([[0] * (T - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(input_ids=tokens.to(model.device), max_new_tokens=most, do_sample=False,
                         attention_mask=there.to(model.device))
    model.train(mode)
    if ended is not None:
        ended += (out[:, T:] == tokenizer.eos_token_id).any(dim=1).tolist()
    return [text.strip() for text in tokenizer.batch_decode(out[:, T:], skip_special_tokens=True)]


def beside(model, tokenizer, pairs, rules):
    """Print what base and adapter say to the first pair's question, and how it was written; and,
    over all pairs, how many of the answers keep each of rules, a name to a function of a text. With
    no pairs it prints nothing."""
    if not pairs:
        return
    prompts = [prompt(tokenizer, question) for question, _ in pairs]
    print(f"asked: {pairs[0][0]}\nas written: {pairs[0][1]}")
    for who, strength in (("base", 0), ("adapter", 1)):
        lm.set_strength(model, strength)
        ended = []
        said = answers(model, tokenizer, prompts, ended=ended)
        print(f"{who}: {said[0]}{'' if ended[0] else ' (cut)'}")
        for name, keeps in rules.items():
            print(f"  {name}: {sum(map(bool, map(keeps, said)))} of {len(said)}")

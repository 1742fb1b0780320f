"""Fourteen ways in which adapters fail silently, each from a bug report, broken and mended.

`SPECIMENS` has them all; `specimens` has their code, `ward` what they are made in. The page of
first aid (`firstaid`) and notebook 14 say what stands here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lora_mini.lab import specimens as made
from lora_mini.lab.beside import heard, shown
from lora_mini.lab.patients import Start
from lora_mini.lab.ward import PROBES, Ward


@dataclass(frozen=True)
class Specimen:
    """One bug.

    symptom: what somebody would type. group: under which heading the page has it; section: where
    notebook 14 does. reports: owner/repository#number. line: a first probe for a model of yours, an
    expression; peft: the same for a model of PEFT's, where it differs; alarm: which answer tells of
    this bug. probe: the Ward's, by whose number broken and mended are told apart. given: what an
    audit must be given beside the model, to find it or to say more of it; unseen: why it finds
    nothing even so. make: (ward, mended) -> a Start or a Patient;
    then: what is done to the Patient after its training.
    """

    name: str
    symptom: str
    group: str
    section: str
    reports: tuple
    cause: str
    line: str
    alarm: str
    remedy: str
    probe: str
    make: Callable
    given: str = ""
    unseen: str = ""
    peft: str = ""
    then: Callable = lambda ward, patient: patient

    def broken(self, ward):
        """The Patient with the bug."""
        return self._patient(ward, False)

    def mended(self, ward):
        """The Patient without it."""
        return self._patient(ward, True)

    def _patient(self, ward, mended):
        found = self.make(ward, mended)
        if isinstance(found, Start):
            found = ward.trained(found)
        return self.then(ward, found)

    def number(self, ward, patient):
        """What its probe says."""
        return getattr(ward, self.probe)(patient)

    def red(self, ward, patient):
        """Whether its probe finds the bug."""
        return PROBES[self.probe][1](self.number(ward, patient))

    def smoke(self, ward):
        """The points of a smoke test that fail with the bug in; None if nothing trains."""
        start = self.make(ward, False)
        if not isinstance(start, Start):
            return None
        return ward.smoked(start)


B_ZERO, LITTLE = "B stays zero, whether the loss falls or not", "B moves, and little is learned"
AS_BASE = "Good in training, the base again after loading"
WORSE = "Good in training, worse after loading"
MERGED, TWO = "Merged, it answers differently", "The same question, two answers"
ENDLESS, RANKS = "It never stops", "The rank changes everything"
GROUPS = (B_ZERO, LITTLE, AS_BASE, WORSE, MERGED, TWO, ENDLESS, RANKS)
LEFT_OUT, AFTER = "Before and in training", "After training"
FILE = "the merged file, and the model with its adapter apart"

SPECIMENS = (
    Specimen(
        "reentrant checkpointing", "The loss falls, and B stays zero.",
        B_ZERO, "Patient A",
        ("huggingface/transformers#26221", "huggingface/peft#1142"),
        "The blocks are computed again on the way back. The reentrant way of doing that gives no "
        "gradient to what is inside if no input asks for one, and a frozen embedding's doesn't. "
        "The loss falls by what trains outside, such as a head.",
        "[n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]",
        "run it after `backward()` and before `zero_grad()`. Are there names in the list? Then no "
        "gradient comes to them. If there are none, and B is still zero after three steps at a "
        "rate above zero, see the next.",
        "`model.enable_input_require_grads()`, or checkpoint with `use_reentrant=False`",
        "zero_share", made.checkpointed),
    Specimen(
        "another model's names", "It learns, but far less than others report.",
        LITTLE, LEFT_OUT,
        ("huggingface/peft#3554", "huggingface/peft#40"),
        "The names in `target_modules` are another model's. Those that match nothing are passed "
        "over as long as one matches.",
        '[n for n, p in model.named_parameters() if "lora_A" in n]',
        "is the list much shorter than you thought?",
        'read the list of what was adapted; `target_modules="all-linear"`',
        "adapted_share", made.foreign_targets),
    Specimen(
        "optimizer too early", "The loss doesn't move at all.",
        B_ZERO, LEFT_OUT, ("huggingface/peft#3409",),
        "The optimizer was built before the adapter was attached. It holds the base's numbers, "
        "which are frozen, and none of A and B.",
        "[n for n, p in model.named_parameters() if p.requires_grad and not any("
        'p is q for g in optimizer.param_groups for q in g["params"])]',
        "are there names in the list?",
        "attach first; then build the optimizer from what requires grad",
        "zero_share", made.early_optimizer),
    Specimen(
        "a copied rate", "The loss creeps down, and the answers are the base's.",
        LITTLE, LEFT_OUT,
        ("QwenLM/Qwen3-VL#127", "sillsdev/silnlp#394"),
        "The learning rate is one for full fine-tuning. LoRA wants a larger one, often ten times "
        "(notebook 07).",
        '[g.get("initial_lr", g["lr"]) for g in optimizer.param_groups]',
        "are the rates below 1e-4, with Adam?",
        "sweep the rate in steps of three, from 1e-4 up, until it breaks. Large models often want "
        "1e-4 to 1e-3 with Adam; the town, in its hundred steps, 3e-3",
        "felt", made.copied_rate),
    Specimen(
        "the rank not divided by", "At rank 1 all is well, at rank 32 it breaks down.",
        RANKS, "The rank not divided by",
        ("rasbt/LLMs-from-scratch#821", "rasbt/LLMs-from-scratch#1080"),
        "The update is multiplied by alpha, not by alpha / rank: a larger rank is a larger scale, "
        "too.",
        '[m.scaling for m in model.modules() if hasattr(m, "lora_A")][:1]',
        "is it another number than alpha / rank? (With `use_rslora`, alpha / sqrt(rank) is right.)",
        "divide: the scale is alpha / rank", "scale", made.undivided),
    Specimen(
        "a base left trainable", "The loss is lower than a sound one's; loaded again, it is bad.",
        WORSE, "Patient D",
        ("unslothai/unsloth-zoo#939", "microsoft/aurora#167"),
        "The base trained along. The file has the factors only, and they fit a base that is gone.",
        '[n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]',
        "are there names that you didn't mean to train? (`modules_to_save` are meant.)",
        "before training goes on, freeze all but the factors and what you chose to save with them",
        "moved", made.thawed, then=made.reloaded),
    Specimen(
        "no end in the loss", "The loss is lower than ever, and it does not stop.",
        ENDLESS, "Patient E",
        ("unslothai/unsloth#416", "mlabonne/llm-course#33"),
        "Padding has the number of the end token, and the loss leaves out all padding. So what "
        "comes after the last word is never learned. Some answers may still end, by what the base "
        "knew.",
        "(labels == end).any(dim=1)",
        "is it False for all rows? (`labels`: what the loss counts, -100 elsewhere; `end`: the "
        "number of the end token.)",
        "give padding a token of its own, or mask by the sentences' lengths", "ends", made.no_end,
        given="the batch with its labels, and `config.eos_token_id`"),
    Specimen(
        "names that don't fit", "It loads without an error and speaks like the base.",
        AS_BASE, "Patient B",
        ("huggingface/diffusers#10187", "huggingface/peft#2118"),
        "The names in the file are not those of the model, and `strict=False` passes over them. "
        "A and B stay as they were drawn.",
        'sorted(set(tensors) ^ {n for n in model.state_dict() if "lora_" in n})',
        "are there names in the list? (`tensors`: the factors by name, as `load_state_dict` gets "
        "them; with PEFT, what is in the file. `adapters.load` refuses such a file, and PEFT warns "
        "of missing adapter keys.)",
        "rename them, and raise an error if any factor is left over or missing",
        "apart", made.other_names, given="the file",
        peft="sorted(set(tensors) ^ set(peft.get_peft_model_state_dict(model)))"),
    Specimen(
        "alpha lost", "Loaded elsewhere, it is a little worse at everything.",
        WORSE, AFTER,
        ("huggingface/diffusers#6087", "sgl-project/sglang#17086"),
        "The file has the factors and not alpha. Whoever loads it takes alpha = rank, and the "
        "update comes out too small or too large.",
        '[m.scaling for m in model.modules() if hasattr(m, "lora_A")][:1]',
        "is it another number than where it was trained?",
        "save alpha and rank with the factors, and compare the scale on both sides",
        "apart", made.exported, given="the file"),
    Specimen(
        "merged twice", "After the export it is worse, though nothing was trained.",
        MERGED, "Patient C",
        ("espnet/espnet#5722",),
        "The update is in the weights already, and the adapter adds it again.",
        "((W - W0) * U).sum() / (U * U).sum()",
        "near 1, the update is in the weight already; near 0, it isn't. (Of one layer: `W`, its "
        "weight now, `W0`, that of the base as published, and `U`, its update, scale and all.)",
        "merge into a copy, once; take the adapter off, or load the base anew",
        "moved", made.merged_twice, given=FILE),
    Specimen(
        "swallowed in 16 bits", "Merged in bfloat16, it answers a little differently.",
        MERGED, "Into 16 bits",
        ("unslothai/unsloth#3091", "huggingface/peft#1388"),
        "W + s B A is rounded to the weight's type. Where W has that type, what is smaller than "
        "half a step is lost, and the rest becomes whole steps.",
        "((W + U).bfloat16() == W.bfloat16()).float().mean()",
        "is the share that comes out unchanged large? (Of one layer: `W`, its weight, and `U`, its "
        "update, scale and all.)",
        "merge in float32 and keep it there, or leave the adapter apart",
        "apart", made.sixteen_bits,
        given=FILE, unseen="but for rounding the file has the right sum"),
    Specimen(
        "merged into four bits", "Good with the adapter apart, ruined by merge and quantise.",
        MERGED, "Into four bits",
        ("huggingface/transformers#31293", "huggingface/peft#2321"),
        "The sum is rounded to sixteen levels again. An update that is smaller than half the "
        "steps between them is mostly lost.",
        "(logits(model) - logits(apart)).norm() / (logits(apart) - logits(base)).norm()",
        "0: nothing is lost; 1: as far off as the base. (`logits(m)`: what a model says to one "
        "batch; `apart`: the same model with the adapter apart; `base`: that one with its adapter "
        "off.)",
        "leave the adapter apart, or merge into 16 bits", "apart", made.four_bits,
        given=FILE),
    Specimen(
        "merged into a tied head", "Merged, it speaks gibberish.",
        MERGED, "Into a tied head",
        ("huggingface/peft#2018", "huggingface/peft#2972"),
        "Head and embedding are one tensor. What is merged into the head lands in the embedding, "
        "too.",
        "len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))",
        "is it True, so that weights are tied? And is the head in the list of adapted layers?",
        "untie first: give the head a copy of its weight, and set `config.tie_word_embeddings = "
        "False`, or loading ties them again", "moved", made.tied,
        given="the model before the merge"),
    Specimen(
        "dropout awake", "Asked twice, it answers twice.",
        TWO, AFTER, ("huggingface/peft#3753",),
        "The base was put into eval mode, and the adapter came after. New modules are in training "
        "mode, their dropout too.",
        "[n for n, m in model.named_modules() if m.training]",
        "are there names in the list, though you called eval()?",
        "`model.eval()` after the adapter is on", "shaky", made.late_dropout),
)


def named(name):
    """The Specimen of that name. Raises ValueError if there is none."""
    found = {s.name: s for s in SPECIMENS}
    if name not in found:
        raise ValueError(f"no specimen is called {name!r}: there are {', '.join(found)}")
    return found[name]


__all__ = ["GROUPS", "PROBES", "SPECIMENS", "Specimen", "Ward", "heard", "named", "shown"]

"""Teaching a chat model: only the answer counts, nothing is cut, the loss is Hugging Face's own."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

import lora_mini as lm  # noqa: E402
from lora_mini.lab import tutor  # noqa: E402


class Words:
    """A tokenizer of words, with the methods that are used of a real one."""

    eos_token = " <end>"

    def __init__(self):
        self.known = ["<pad>"]

    def __call__(self, text, add_special_tokens):
        words = text.split()
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        return type("Found", (), {"input_ids": [self.known.index(word) for word in words]})

    def apply_chat_template(self, messages, add_generation_prompt, tokenize):
        assert add_generation_prompt and not tokenize
        return " ".join(f"<{m['role']}> {m['content']}" for m in messages) + " <assistant>"


def tiny(vocab=40, d=16, layers=2):
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab, hidden_size=d, intermediate_size=2 * d, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        initializer_range=0.3)).eval()


@pytest.fixture
def rows():
    words = Words()
    pairs = [("how are you", "well thanks"), ("is it late", "no it is early today"), ("a b", "c")]
    return [tutor.encode(words, *pair, system="be kind") for pair in pairs]


def test_only_the_answer_and_its_end_count():
    words = Words()
    tokens, labels = tutor.encode(words, "how are you", "well thanks", system="be kind")
    assert [words.known[t] for t in tokens] == (
        "<system> be kind <user> how are you <assistant> well thanks <end>".split())
    assert labels == [tutor.IGNORED] * 8 + tokens[8:]
    assert tutor.masked([(tokens, labels)]) == 8 / 11


def test_what_is_too_long_or_empty_is_refused_by_name():
    with pytest.raises(ValueError, match="'how are you' has 7 tokens, at most 6 fit"):
        tutor.encode(Words(), "how are you", "fine", most=6)
    with pytest.raises(ValueError, match="answer to 'how are you' is empty"):
        tutor.encode(Words(), "how are you", "  ")


def test_a_file_of_pairs_or_of_text_is_read_whole(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("\ufeffhow are you\twell, thanks \n\nis it late\tno\n", "utf-8")
    assert tutor.read(path) == [("how are you", "well, thanks"), ("is it late", "no")]
    path.write_text("how\tfirst\\nsecond\n", "utf-8")
    assert tutor.read(path) == [("how", "first\nsecond")]
    path.write_text("First line.\n\nSecond, \u00e9.", "utf-8")
    assert tutor.read(path) == "First line.\n\nSecond, \u00e9."


def test_every_fifth_is_held_back_and_nothing_is_lost():
    assert tutor.apart(list("abcdefghijkl")) == (list("abcdfghikl"), ["e", "j"])
    with pytest.raises(ValueError, match="five of them or more, got 4"):
        tutor.apart(list("abcd"))


def test_a_readers_file_is_read_and_a_fifth_held_back(tmp_path, capsys):
    path, words = tmp_path / "mine.tsv", Words()
    pairs = [(f"q{i}", f"a{i}") for i in range(11)]
    path.write_text("".join(f"{q}\t{a}\n" for q, a in pairs), "utf-8")
    rows = [tutor.encode(words, *pair) for pair in pairs]
    assert tutor.own(words, path) == (*tutor.apart(rows), [pairs[4], pairs[9]])
    path.write_text("w " * 700, "utf-8")
    taught, held, none = tutor.own(words, path)
    assert (len(taught), len(held), none) == (5, 1, [])
    assert capsys.readouterr().out == "read as 11 pairs\nread as plain text, 6 windows\n"


@pytest.mark.parametrize("text, message", [
    ("a\tb\n\nonly one\n", "line 3: expected a question, one tab and an answer.*'only one'"),
    ("a\tb\tc\n", "line 1"), ("a\t \n", "line 1"), (" \n\n", "is empty")])
def test_a_line_that_is_no_pair_is_named(tmp_path, text, message):
    (tmp_path / "mine.tsv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        tutor.read(tmp_path / "mine.tsv")


@pytest.mark.parametrize("count", range(1, 12))
@pytest.mark.parametrize("window", [2, 3, 5])
def test_of_a_plain_text_every_token_but_the_first_is_predicted_once(count, window):
    words = Words()
    rows = tutor.plain(words, " ".join(f"w{i}" for i in range(count)), window)
    predicted = [words.known[t] for _, labels in rows for t in labels[1:]]
    assert predicted == [f"w{i}" for i in range(1, count)] + ["<end>"]
    assert all(tokens == labels and 2 <= len(tokens) <= window for tokens, labels in rows)
    with pytest.raises(ValueError, match="2 tokens or more, got 1"):
        tutor.plain(words, "a b", 1)


def test_examples_stand_before_the_question_in_a_prompt():
    words = Words()
    tokens = tutor.prompt(words, "three", before=[("one", "two")])
    assert [words.known[t] for t in tokens] == (
        "<user> one <assistant> two <user> three <assistant>".split())


@pytest.mark.parametrize("shape", [(40, 16, 2), (64, 24, 3)])
def test_the_loss_is_that_of_the_model_itself(rows, shape):
    model, batch = tiny(*shape), tutor.padded(rows)
    assert tutor.nats(model, rows).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)
    counted = sum(label != tutor.IGNORED for _, labels in rows for label in labels)
    assert tutor.nats(model, rows, total=True)[1] == counted
    assert tutor.held_out(model, rows, size=2) == pytest.approx(
        tutor.nats(model, rows).item(), rel=1e-5)


def test_an_answer_has_ended_where_its_own_end_came():
    """The rows of one batch stop together: those that ended earlier are filled up."""
    end = 9

    class Said(torch.nn.Module):
        device = "cpu"

        def generate(self, input_ids, **options):
            assert input_ids.tolist() == [[0, 0, 9], [4, 5, 9], [0, 4, 4]]  # a prompt may hold ends
            return torch.cat([input_ids, torch.tensor([[7, end, 0], [7, 8, 7], [7, 8, end]])], 1)

    words = type("Words", (), {"eos_token_id": end, "batch_decode": staticmethod(
        lambda out, skip_special_tokens: [" ".join(map(str, row.tolist())) for row in out])})
    ended = []
    said = tutor.answers(Said(), words, [[9], [4, 5, 9], [4, 4]], most=3, ended=ended)
    assert ended == [True, False, True] and said == ["7 9 0", "7 8 7", "7 8 9"]


def test_training_lowers_the_loss_and_leaves_the_base_and_the_mode_alone(rows):
    model = tiny()
    before = {n: p.clone() for n, p in model.named_parameters()}
    lm.attach(model, "all-linear", rank=2, alpha=6)
    done = tutor.fit(model, rows, 1e-2, epochs=40, size=2, progress=False)
    assert done.whole and len(done.losses) == 60 and not model.training
    assert tutor.held_out(model, rows) < 0.7 * done.losses[0]
    now = dict(model.named_parameters())
    assert all(torch.equal(p, now.get(n, now.get(n.replace(".weight", ".base.weight"))))
               for n, p in before.items())
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0: lower the rate"):
        with torch.no_grad():
            next(p for n, p in model.named_parameters() if "lora_B" in n).fill_(float("nan"))
        tutor.fit(model, rows, 1e-3, progress=False)


def test_answers_do_not_depend_on_who_else_is_in_the_batch(rows):
    model = tiny()
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 39, 0
    words = type("Words", (), {"batch_decode": staticmethod(lambda out, skip_special_tokens: [
        " ".join(map(str, row.tolist())) for row in out])})
    prompts = [tokens[:6 + i] for i, (tokens, _) in enumerate(rows)]
    together = tutor.answers(model, words, prompts, most=5)
    assert together == [tutor.answers(model, words, [p], most=5)[0] for p in prompts]


def test_replayed_rows_are_the_models_own_answers_but_those_that_were_cut(monkeypatch):
    words = Words()

    def answers(model, tokenizer, prompts, ended):
        ended += [True, False, True]
        return [" ".join(words.known[t] for t in tokens[1:3]) for tokens in prompts]

    monkeypatch.setattr(tutor, "answers", answers)
    rows = tutor.replayed(None, words, ["is it late", "why so long", "a b c"])
    assert rows == [tutor.encode(words, "is it late", "is it"), tutor.encode(words, "a b c", "a b")]


def test_base_and_adapter_beside_what_was_written(monkeypatch, capsys):
    model = tiny()
    lm.attach(model, "all-linear", rank=2, alpha=6)
    layer = model.model.layers[0].mlp.up_proj

    def answers(model, tokenizer, prompts, ended):
        ended += [layer.strength == 0, True]
        return [f"said at {layer.strength:g}", "no"]

    monkeypatch.setattr(tutor, "answers", answers)
    rules = {"says": lambda said: "said" in said}
    tutor.beside(model, Words(), [("how", "so"), ("why", "thus")], rules)
    assert capsys.readouterr().out.splitlines() == [
        "asked: how", "as written: so", "base: said at 0", "  says: 1 of 2",
        "adapter: said at 1 (cut)", "  says: 1 of 2"]
    assert layer.strength == 1
    tutor.beside(model, Words(), [], rules)
    assert capsys.readouterr().out == ""

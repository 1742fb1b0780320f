"""Counts against counts by hand and against what an optimiser really holds."""

import pytest
import torch
from torch import nn

import lora_mini as lm
from lora_mini.lab.peak import peak_bytes
from lora_mini.ledger import ledger, lora_parameters, step_bytes
from lora_mini.quant import to_four_bits
from lora_mini.shapes import skeleton
from lora_mini.variants import DoRALinear
from lora_mini.world.gpt import GPT, Config


def model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3, bias=False))


def test_a_count_by_hand_before_and_after_attaching():
    net = model()
    full = ledger(net)
    assert (full.parameters, full.trainable) == (24 + 4 + 12, 40)
    assert (full.weight_bytes, full.gradient_bytes, full.optimizer_bytes) == (160, 160, 320)
    assert full.total_bytes == 640
    lm.attach(net, ["0"], rank=2, alpha=5)
    lora = ledger(net)
    assert (lora.parameters, lora.trainable) == (40 + 2 * (6 + 4), 20)
    assert (lora.weight_bytes, lora.gradient_bytes, lora.optimizer_bytes) == (240, 80, 160)


def test_weights_in_four_bits_are_all_numbers_and_few_bytes():
    net = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 2, bias=False))
    to_four_bits(net, "0")
    book = ledger(net)
    codes, scales = 64 * 128 // 2, 128 + 4 + 4  # a byte each; the group's; the mean's
    assert book.parameters == 64 * 128 + 128 + 256
    assert book.weight_bytes == codes + scales + 4 * (128 + 256)


def test_a_skeleton_is_counted_as_by_hand():
    d, kv, ff, words = 4096, 1024, 14336, 128256  # Llama 3 8B
    block = 2 * d * d + 2 * kv * d + 3 * d * ff + 2 * d
    assert ledger(skeleton("llama3-8b")).parameters == 32 * block + 2 * words * d + d
    net = skeleton("llama3-8b", four_bits=True)
    lm.attach(net, ["k_proj"], rank=2, alpha=5)
    assert ledger(net).trainable == 32 * 2 * (d + kv)


def test_lora_parameters_of_the_models_in_the_course_notes():
    assert lora_parameters(4, 6, 2) == 20
    q, kv, mlp = (576, 576), (192, 576), (1536, 576)  # one block of SmolLM2-135M
    block = sum(lora_parameters(*shape, 1) for shape in (q, q, kv, kv, mlp, mlp, mlp[::-1]))
    assert 30 * block == 305_280
    assert 96 * 2 * lora_parameters(12288, 12288, 4) == 18_874_368  # GPT-3 175B, q and v, rank 4


@pytest.mark.parametrize("name, make", [
    ("adamw", lambda p: torch.optim.AdamW(p)), ("adam", lambda p: torch.optim.Adam(p)),
    ("sgd", lambda p: torch.optim.SGD(p, 0.1)),
    ("momentum", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_and_optimizer_bytes_are_those_held_after_a_step(name, make, dtype):
    net = model().to(dtype)
    lm.attach(net, "all-linear", rank=2, alpha=5)
    optimizer = make(list(lm.trainable_parameters(net)[0].values()))
    net(torch.ones(2, 6, dtype=dtype)).sum().backward()
    optimizer.step()
    counted = ledger(net, name)
    held = sum(v.nbytes for state in optimizer.state.values() for v in state.values()
               if isinstance(v, torch.Tensor) and v.dim())
    assert counted.optimizer_bytes == held
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert counted.gradient_bytes == sum(g.nbytes for g in gradients)
    assert counted.weight_bytes == sum(p.nbytes for p in net.parameters())


def test_tied_weights_count_once_and_the_meta_device_costs_nothing():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    net[1].weight = net[0].weight
    assert ledger(net).parameters == 15
    with torch.device("meta"):
        assert ledger(nn.Linear(100_000, 100_000, bias=False)).weight_bytes == 4 * 10**10


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="one of adam.*got 'lion'"):
        ledger(model(), "lion")


def test_what_has_no_parameters_to_count_is_refused():
    with pytest.raises(TypeError, match="must be a torch.nn.Module, got str"):
        ledger("x")
    for wrong in ((8, 6, -1), (8, 6, 0), (8, 0, 2), (8, 6, 2.0), (8, 6, None)):
        with pytest.raises(ValueError, match="whole numbers from 1 up"):
            lora_parameters(*wrong)


# Activations


def kept_by_the_graph(output, model):
    """The same number from the other side: walk the graph, and look at what its nodes hold."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found, todo, seen = {}, [output.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        held = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        held += list(getattr(node, "saved_tensors", ()))
        for tensor in held:
            if isinstance(tensor, torch.Tensor) and tensor.dim():  # no number, as in x / 4
                memory = tensor.untyped_storage()
                if memory.data_ptr() not in own:
                    found[memory.data_ptr()] = memory.nbytes()
        todo += [child for child, _ in node.next_functions]
    return sum(found.values())


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def test_activations_are_counted_as_by_hand():
    model, x = mlp(), torch.randn(5, 6)
    assert ledger(model).activation_bytes is None
    both = 4 * (5 * 6 + 5 * 8)  # x for the first layer, tanh's output for itself and the second
    assert ledger(model, batch=x).activation_bytes == both
    model[0].requires_grad_(False)
    assert ledger(model, batch=(x,)).activation_bytes == 4 * 5 * 8
    model.requires_grad_(False)
    assert ledger(model, batch={"input": x}).activation_bytes == 0
    lm.attach(model, ["0"], 2, 5)
    assert ledger(model, batch=x).activation_bytes == both  # A's gradient needs x


@pytest.mark.parametrize("adapt", [
    lambda m: None,
    lambda m: lm.attach(m, "all-linear", 2, 5),
    lambda m: lm.attach(m, "all-linear", 2, 5, layer=DoRALinear),
    lambda m: lm.attach(m, "q_proj", 2, 5, modules_to_save=["head"])])
def test_activations_are_what_the_graph_holds(adapt):
    torch.manual_seed(0)
    model = GPT(Config(11, context=8, d_model=16, heads=2, layers=2))
    adapt(model)
    tokens = torch.arange(48).view(6, 8) % 11
    assert ledger(model, batch=tokens).activation_bytes == kept_by_the_graph(model(tokens), model)


def test_activations_are_counted_on_the_meta_device_too():
    def made(device):
        with torch.device(device):
            model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
            lm.attach(model, ["0", "2"], 2, 5)
            return ledger(model, batch=torch.zeros(32, 64, device=device)).activation_bytes
    assert made("meta") == made("cpu") > 0


def test_no_grad_around_it_changes_nothing_and_no_graph_is_left():
    model, x = mlp(), torch.randn(5, 6)
    with torch.no_grad():
        assert ledger(model, batch=x).activation_bytes == 4 * (5 * 6 + 5 * 8)
    assert all(p.grad is None for p in model.parameters())


def test_a_steps_peak_by_hand_and_as_tensors_hold_it():
    net = nn.Sequential(nn.Linear(50, 40, bias=False), nn.Tanh(), nn.Linear(40, 30, bias=False))
    x = torch.randn(1000, 50)
    trained = list(net.parameters())
    optimizer = torch.optim.SGD(trained, lr=0.1)

    def loss():
        return net(x).square().sum()

    def go():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    weights, kept = 4 * (50 * 40 + 40 * 30), 4 * 1000 * (50 + 40 + 30)  # x, tanh's, the output
    assert step_bytes(net, loss, "sgd") == weights + kept + 2 * 4 * 1000 * 50
    short = x[:1].clone()  # here the end, with all gradients, is more than the beginning
    assert step_bytes(net, lambda: net(short).sum(), "adamw") == 4 * weights
    assert peak_bytes(go, net, x) == pytest.approx(step_bytes(net, loss, "sgd"), rel=0.2)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        step_bytes(net, loss, "adagrad")

"""What a router promises: the library's contract of logits, weights and indices, token by token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ...core.model.loading import load_model, save_model
from ...core.model.router import RouterBase, RouterContext
from ...core.model.seeding import seeded
from ..check import NotApplicable, Subject
from ..tiny import logits_of, own_ref, tiny_model, tiny_tokenizer, tokens, weights_digest

HIDDEN, EXPERTS, TOKENS = 16, 8, 24
STD = 0.2


def router_of(subject: Subject, *, top_k: int = 2, seed: int = 0) -> RouterBase:
    """A router of its own for eight experts, initialised from a seed."""
    context = RouterContext(hidden_size=HIDDEN, num_experts=EXPERTS, top_k=top_k, layer=0)
    with seeded(seed):
        router = subject.build(context=context)
        assert isinstance(router, RouterBase), f"It is a {type(router).__name__}; inherit from RouterBase."
        router.reset(STD)
    return router.eval()


def states(count: int = TOKENS, *, seed: int = 1) -> torch.Tensor:
    """Hidden states as RMS-normed ones are, shape (N, H)."""
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed))


def shapes(subject: Subject) -> None:
    """For N tokens, E experts and top-k a router gives logits (N, E), weights (N, k) and int64 indices (N, k)."""
    for top_k in (1, 2, EXPERTS):
        router = router_of(subject, top_k=top_k)
        for hidden in (states(), states().view(2, TOKENS // 2, HIDDEN)):
            logits, weights, index = router(hidden)
            found = tuple(logits.shape), tuple(weights.shape), tuple(index.shape)
            wanted = (TOKENS, EXPERTS), (TOKENS, top_k), (TOKENS, top_k)
            assert found == wanted, f"Hidden states {tuple(hidden.shape)} with top-{top_k} gave {found}, not {wanted}."
            assert index.dtype == torch.int64, f"Indices are {index.dtype}."
            assert weights.dtype == logits.dtype, f"Weights are {weights.dtype}, logits {logits.dtype}."


def indices(subject: Subject) -> None:
    """Every token goes to k different experts, numbered from 0."""
    for top_k in (1, 2, EXPERTS):
        _, _, index = router_of(subject, top_k=top_k)(states())
        low, high = int(index.min()), int(index.max())
        assert low >= 0 and high < EXPERTS, f"Indices go from {low} to {high} among {EXPERTS} experts."
        ordered = index.sort(-1).values
        assert bool((ordered[:, 1:] != ordered[:, :-1]).all()), f"With top-{top_k} a token goes to one expert twice."


def weights(subject: Subject) -> None:
    """Weights are finite and not below 0; those of a token add up to 1 at most, or are 1 each (straight-through)."""
    for top_k in (1, 2, EXPERTS):
        found = router_of(subject, top_k=top_k)(states())[1].detach().double()
        assert bool(found.isfinite().all()), "There are weights that are not finite."
        assert float(found.min()) >= 0.0, f"The smallest weight is {float(found.min()):.3g}."
        most = float(found.sum(-1).max())
        # A gate p / sg(p) has the value 1 whatever is chosen; anything else above 1 is a missing normalisation.
        ones = bool(((found - 1.0).abs() < 1e-6).all())
        assert ones or most <= 1.0 + 1e-5, f"With top-{top_k} the weights of a token add up to {most:.4g}."


def padding(subject: Subject) -> None:
    """What stands at padding changes no other token's routing: a router has no mask, so each token goes by itself."""
    router, real = router_of(subject), states()
    logits, weight, index = router(real)
    for filling in (torch.zeros(8, HIDDEN), 50.0 * states(8, seed=2)):
        padded = router(torch.cat([real, filling]))
        assert torch.equal(padded[2][:TOKENS], index), "With padding behind them tokens go to other experts."
        for before, after in ((logits, padded[0]), (weight, padded[1])):
            torch.testing.assert_close(after[:TOKENS], before, rtol=1e-4, atol=1e-5)


def permutation(subject: Subject) -> None:
    """Tokens in another order get the same routing in that order."""
    router, hidden = router_of(subject), states()
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(3))
    logits, weight, index = router(hidden)
    moved = router(hidden[order])
    assert torch.equal(moved[2], index[order]), "In another order tokens go to other experts."
    torch.testing.assert_close(moved[0], logits[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved[1], weight[order], rtol=1e-4, atol=1e-5)


def gradient(subject: Subject) -> None:
    """Through the weights alone a finite gradient reaches the hidden states and every parameter of the router."""
    router, hidden = router_of(subject).train(), states().requires_grad_()
    if not any(True for _ in router.parameters()):
        raise NotApplicable("it has no parameters, so there is nothing that a gradient would train")
    _, weight, _ = router(hidden)
    assert weight.requires_grad, "The weights have no gradient, so the task loss never trains this router."
    (weight * torch.linspace(0.5, 1.5, weight.numel()).view_as(weight)).sum().backward()
    reached = {"the hidden states": hidden.grad, **{name: p.grad for name, p in router.named_parameters()}}
    for name, found in reached.items():
        assert found is not None and bool(found.any()), f"No gradient reaches {name}."
        assert bool(found.isfinite().all()), f"The gradient of {name} is not finite."


def determinism(subject: Subject) -> None:
    """Equal hidden states get equal bits, and no global random state is used or changed."""
    hidden, state = states(), torch.get_rng_state()
    for router in (router_of(subject), router_of(subject).train()):
        first, second = router(hidden), router(hidden)
        assert all(map(torch.equal, first, second)), "The same call gave other numbers the second time."
    assert torch.equal(torch.get_rng_state(), state), "It draws from the global random state."


def seed(subject: Subject) -> None:
    """Two routers initialised from one seed are equal in every bit, and another seed gives another router."""
    one, same, other = (weights_digest(router_of(subject, seed=number)) for number in (5, 5, 6))
    assert one == same, "The same seed gave another router; draw with transformers.initialization in init_weights."
    if any(True for _ in router_of(subject).parameters()):
        assert one != other, "Another seed gave the same router; init_weights leaves the parameters as they are."


def selection_bias(subject: Subject) -> None:
    """``selection_bias`` moves the choice of experts, and neither logits nor the weight of a chosen expert."""
    router, hidden = router_of(subject), states()
    logits, before, chosen = router(hidden)
    router.selection_bias[3] = 10.0
    moved, weight, index = router(hidden)
    assert bool((index == 3).any(-1).all()), "A large bias does not bring every token to its expert."
    torch.testing.assert_close(moved, logits)
    old, new = chosen.sort(-1), index.sort(-1)
    same = (old.values == new.values).all(-1)  # tokens that go where they went, in whatever order
    torch.testing.assert_close(weight.gather(-1, new.indices)[same], before.gather(-1, old.indices)[same])


def bf16(subject: Subject) -> None:
    """In bfloat16 weights are finite and near those of fp32, and ``selection_bias`` stays fp32."""
    router, hidden = router_of(subject, top_k=1), states()
    _, exact, index = router(hidden)
    router.to(torch.bfloat16)
    logits, weight, found = router(hidden.bfloat16())
    assert router.selection_bias.dtype == torch.float32, "The selection bias was cast; its steps are below bf16's."
    assert bool(logits.isfinite().all() and weight.isfinite().all()), "There are numbers that are not finite."
    same = (found == index)[:, 0]
    assert float(same.double().mean()) >= 0.7, f"Only {int(same.sum())} of {TOKENS} tokens go to the same expert."
    torch.testing.assert_close(weight.float()[same], exact[same], rtol=0.1, atol=0.05)


def compile(subject: Subject) -> None:
    """torch.compile captures the router as one graph, which gives the same routing."""
    router, hidden = router_of(subject), states()
    wanted = router(hidden)
    torch.compiler.reset()
    try:
        found = torch.compile(router, backend="eager", fullgraph=True)(hidden)
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise AssertionError(f"It cannot be captured: {reason}") from error
    finally:
        torch.compiler.reset()
    assert torch.equal(found[2], wanted[2]), "Compiled, tokens go to other experts."
    for one, other in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def state_dict(subject: Subject) -> None:
    """A state dict makes another router of the same kind route the same way, bit for bit."""
    router, other, hidden = router_of(subject), router_of(subject, seed=9), states()
    router.selection_bias[1] = 0.25
    other.load_state_dict(router.state_dict())
    assert all(map(torch.equal, router(hidden), other(hidden))), "It routes otherwise after the state dict was loaded."


def capacity(subject: Subject) -> None:
    """A router with a method ``capacity(tokens)`` gives no expert more tokens with a weight above 0."""
    router = router_of(subject)
    limit = getattr(router, "capacity", None)
    if not callable(limit):
        raise NotApplicable("it has no method capacity(tokens)")
    _, weight, index = router(states())
    most, load = int(limit(TOKENS)), torch.bincount(index[weight > 0], minlength=EXPERTS)
    assert int(load.max()) <= most, f"An expert got {int(load.max())} tokens; its capacity is {most}."


def in_a_model(subject: Subject) -> None:
    """In a model it trains with finite gradients, and the saved model has the same logits."""
    model, ids = tiny_model(subject, router=own_ref(subject)), tokens(2, 12)
    loss = model.train()(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    assert bool(loss.isfinite()), f"The loss is {float(loss.detach())}."
    broken = [name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    assert not broken, f"The gradient of {broken[0]} is not finite."
    with TemporaryDirectory() as folder:
        save_model(model, tiny_tokenizer(), folder)
        again = load_model(Path(folder), subject.registry)
        assert torch.equal(logits_of(again, ids), logits_of(model, ids)), "The saved model has other logits."


CHECKS: tuple[Callable[[Subject], None], ...] = (
    shapes,
    indices,
    weights,
    padding,
    permutation,
    gradient,
    determinism,
    seed,
    selection_bias,
    bf16,
    compile,
    state_dict,
    capacity,
    in_a_model,
)

"""What the package assumes about undocumented parts of torch, shown by what they do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from staf_nerf import _torch_compat as compat

PACKAGE = Path(compat.__file__).parent


@pytest.mark.parametrize("transform", ["vmap", "grad", "jacrev", "jvp", "functionalize"])
def test_a_transformation_of_torch_func_is_seen_inside_of_it_only(transform):
    seen = []

    def function(x):
        seen.append(compat.is_transformed())
        return x.sum()

    x = torch.ones(3)
    inputs = (function, (x,), (x,)) if transform == "jvp" else (function,)
    transformed = getattr(torch.func, transform)(*inputs)
    if transform != "jvp":
        transformed(x)
    assert seen == [True]
    assert not compat.is_transformed()


def test_forward_mode_is_seen_between_the_ends_of_its_level():
    assert not compat.is_forward_mode()
    with forward_ad.dual_level():
        assert compat.is_forward_mode()
    assert not compat.is_forward_mode()
    seen = []
    torch.func.jvp(lambda x: (seen.append(compat.is_forward_mode()), x)[1], (torch.ones(2),), (torch.ones(2),))
    assert seen == [True]


@pytest.mark.filterwarnings("ignore")  # torch.jit.trace is deprecated
def test_a_trace_is_seen_inside_of_it_only():
    seen = []
    torch.jit.trace(lambda x: (seen.append(compat.is_traced()), x + 1)[1], torch.ones(2), check_trace=False)
    assert seen == [True]
    assert not compat.is_traced()


def test_a_dispatch_mode_is_seen_inside_of_it_only():
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **kwargs or {})

    assert not compat.has_dispatch_mode()
    with Mode():
        assert compat.has_dispatch_mode()
        with Mode():
            assert compat.has_dispatch_mode()
    assert not compat.has_dispatch_mode()


def test_a_view_is_told_from_what_has_its_own_memory():
    x = torch.ones(2, 3)
    views = [x[0], x.T, x.view(6), *x.unbind()]
    assert all(map(compat.is_view, views))
    assert not any(map(compat.is_view, [x, x + 1, x.clone(), x[0].clone(), torch.empty(0)]))


def test_the_compiler_takes_a_marked_function_as_a_constant():
    program = """
import sys
import torch
from staf_nerf._torch_compat import constant_when_compiled, is_transformed

@constant_when_compiled
def is_so():
    return bool(torch.ones(1).numpy().tobytes())  # what the compiler could not follow

assert "torch._dynamo" not in sys.modules
public = torch.compiler.assume_constant_result(lambda: True)
assert is_so.__dict__.keys() == public.__dict__.keys()
compiled = torch.compile(lambda x: x + 1 if is_so() else x, fullgraph=True, backend="eager")
assert compiled(torch.ones(1)).item() == 2.0
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
def test_the_operator_for_onednn_is_a_product(generator):
    a, b = torch.randn(5, 3, generator=generator), torch.randn(4, 3, generator=generator)
    torch.testing.assert_close(compat.linear_by_onednn(a, b), a @ b.T)


def private_names(tree: ast.AST, of_torch: set[str]) -> list[str]:
    """Private attributes of names in `of_torch`, and private modules of torch that are imported."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in of_torch:
                found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [name for name in names if name.startswith("_")]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_uses_private_parts_of_torch(path):
    found = private_names(ast.parse(path.read_text()), {"torch", "nn", "functional", "forward_ad"})
    assert bool(found) == (path.name == "_torch_compat.py"), found

"""Import rule of If: the branch that a constant condition takes is translated in place."""

from __future__ import annotations

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule


@onnx_rule("If", becomes="(the branch taken)", constraints="condition constant once dimensions are bound")
def _import_if(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    condition = node.need_const(ctx, 0, "condition")
    if condition.size != 1:
        raise ModelError(f"the condition has {condition.size} elements, expected 1")
    branch = node.attr("then_branch" if condition.reshape(())[()] else "else_branch")
    if branch is None:
        raise ModelError("the branch that is taken is missing")
    return ctx.inline(branch)

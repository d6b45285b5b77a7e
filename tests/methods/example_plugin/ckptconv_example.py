"""A method that another package brings: `pip install` of it is all there is to do."""

from ckptconv import Layout, Method, drop, keep

EXAMPLE = Method(
    name="example",
    title="an example",
    layouts=(Layout((drop("student.head.{p...}", "the head"), keep("student.{key...}", "{key...}")), ("state_dict",)),),
)

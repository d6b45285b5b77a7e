"""The numbers of `tests/official/` are the same on every machine: its maps were computed with them elsewhere."""

from __future__ import annotations

import torch

from tests.support import official


def test_the_numbers_of_a_name_are_known() -> None:
    assert torch.equal(official.made("cls_token", (1, 1, 3)), torch.tensor([[[0.26221478, 0.4770273, 0.06692797]]]))
    assert torch.equal(official.made("norm.weight", (3,)), torch.tensor([1.3632861, 1.22881, 1.1945622]))
    assert torch.equal(
        official.image(2, 2)[0, 0].flatten(), torch.tensor([-1.5073893, -1.6043339, 0.8541169, 1.0627708])
    )
    assert official.positions((1, 64, 14, 14), 4).tolist() == [11223, 10565, 9090, 7661]


def test_every_tensor_gets_numbers_of_its_own() -> None:
    one, other = official.made("teacher/norm.weight", (64,)), official.made("student/norm.weight", (64,))
    assert not torch.equal(one, other)
    assert 0.6 <= float(one.min()) < float(one.max()) <= 1.4

import torch

from midnight.sending import per_channel, send


def test_values_arrive_as_they_are() -> None:
    values = torch.arange(6).view(2, 3)
    assert torch.equal(send(values, torch.device("cpu")), values)
    channels = per_channel((0.5, 0.25, 1.0), torch.device("cpu"))
    assert channels.shape == (3, 1, 1) and channels.flatten().tolist() == [0.5, 0.25, 1.0]
    assert per_channel((0.5, 0.25, 1.0), torch.device("cpu")) is channels

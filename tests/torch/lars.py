"""LARS in PyTorch, from algorithm 1 of You, Gitman, Ginsburg (arXiv 1708.03888): the yardstick of train.optimizer = lars."""

import torch


class Lars(torch.optim.Optimizer):
    """The layers are the weights of more than one dimension; biases and normalisation have the global rate, no decay."""

    def __init__(self, parameters, lr, eta, momentum, weight_decay, nesterov=False):
        super().__init__(parameters, {"lr": lr, "eta": eta, "momentum": momentum, "weight_decay": weight_decay,
                                      "nesterov": nesterov})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                self.update(w, group)

    def update(self, w, group):
        is_layer = w.dim() > 1
        decay = group["weight_decay"] if is_layer else 0.0
        local = group["eta"] * w.norm() / (w.grad.norm() + decay * w.norm()) if is_layer else 1.0
        change = group["lr"] * local * (w.grad + decay * w)
        v = self.state[w].setdefault("v", torch.zeros_like(w))
        v.mul_(group["momentum"]).add_(change)
        w.sub_(change + group["momentum"] * v if group["nesterov"] else v)

"""What all methods came to on a corpus: points that stand in a crowd."""

from typing import Any

# Milliseconds an instance, and the area between the curves.
CROWD = {
    "random": (0.0838, 0.020),
    "raw_attention": (2.07, 0.192),
    "w": (2.3, 0.292),
    "attention_rollout": (2.44, 0.301),
    "ifr": (2.83, 0.360),
    "decompx": (3.26, 0.428),
    "saliency": (3.38, 0.321),
    "grad_x_input": (3.39, 0.202),
    "attention_gradcam": (3.51, 0.121),
    "generic_attribution": (3.58, 0.355),
    "norm_n_resln": (4.7, 0.329),
    "norm_n_fixed_res": (4.74, 0.330),
    "norm_n_res": (4.81, 0.332),
    "norm_n": (4.84, 0.298),
    "globenc": (4.93, 0.330),
    "w_res": (5, 0.312),
    "alti": (6.07, 0.384),
    "lrp": (6.39, 0.257),
    "partial_lrp": (6.4, 0.160),
    "transformer_attribution": (8.15, 0.140),
    "occlusion": (13.1, 0.359),
    "bt_token": (17.4, 0.144),
    "bt_head": (18.5, 0.193),
    "value_zeroing": (22.8, 0.311),
    "lime": (31.5, 0.344),
    "smoothgrad": (31.8, 0.328),
    "attattr_colsum": (33.8, 0.323),
    "integrated_gradients": (40.8, 0.649),
    "kernel_shap": (65.6, 0.409),
    "influence": (128, 0.626),
    "iba": (150, 0.352),
}


def crowd() -> list[dict[str, Any]]:
    """Rows as ``cost_faithfulness`` has them, the cheapest first."""
    return [
        {"method": name, "seconds_per_instance": cost / 1000, "auc_difference": area}
        for name, (cost, area) in CROWD.items()
    ]

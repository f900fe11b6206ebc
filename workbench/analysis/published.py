"""Numbers printed in the paper, for comparison with ours."""

import pandas as pd

# Gu et al. 2024 (arXiv 2401.04700), table 1: ROME on GPT-2 XL, ZsRE; thresholds are the 80 % and 90 % quantiles of
# δ averaged over 100 single edits
TABLE1_THRESHOLDS = {0.8: 0.077, 0.9: 0.171}
TABLE1 = pd.DataFrame(
    [(1, 9079.2, 0.200, 0.100), (5, 27072.2, 0.492, 0.289), (10, 52245.3, 0.674, 0.462), (15, 63247.5, 0.728, 0.522)],
    columns=["n_edits", "manhattan_distance", "share_above_q80", "share_above_q90"],
)

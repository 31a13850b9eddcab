"""What a model has to beat, measured in the same run on exactly the same examples.

constant       what the training labels say of any example
last value     the newest label of the same entity that was known at the cut-off, and what followed it in training
LightGBM       boosted trees on the seed row's own columns as they stood at the cut-off; no features by hand
"""

from graph_transformer.finetune.floors.boosting import LIGHTGBM
from graph_transformer.finetune.floors.columns import SeedColumns, seed_columns
from graph_transformer.finetune.floors.constant import CONSTANT
from graph_transformer.finetune.floors.floors import Floor, measure_floors
from graph_transformer.finetune.floors.last_value import LAST_VALUE

FLOORS = (CONSTANT, LAST_VALUE, LIGHTGBM)

__all__ = ["CONSTANT", "FLOORS", "LAST_VALUE", "LIGHTGBM", "Floor", "SeedColumns", "measure_floors", "seed_columns"]

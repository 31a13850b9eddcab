"""The model on a live neighborhood: encode, attend, calibrate, keep as a checkpoint, predict.

    Neighborhood ─► encoding.collate ─► Batch ─► model ─► logit ─► calibration ─► Prediction

`encoding` is the one collate that training and serving share; `predictor` is what a server holds; `finetune` trains.
Importing this package loads none of them.
"""

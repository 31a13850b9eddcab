"""The single writer: records of a source -> RowEvent bytes -> the live graph, with the stream positions it contains."""

"""The wire: protobuf packages by version, with their generated code beside them."""

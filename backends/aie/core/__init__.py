"""The cores of the array: instructions, assembly, and execution with values and cycles."""

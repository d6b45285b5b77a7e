"""A converted checkpoint, a detector and a schedule -> the text of an MMDetection config. Imports no torch."""

"""The RAG classes for TensorFlow, as models of Keras 3. Importing this loads no framework."""

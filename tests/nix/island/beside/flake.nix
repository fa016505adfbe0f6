{ outputs = _: { word = "from the flake beside"; }; }
